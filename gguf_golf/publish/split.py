"""A GGUF in parts of a limited size, as llama.cpp's gguf-split names and marks them; any llama.cpp reads them."""

from pathlib import Path

import gguf
from gguf import GGUFWriter

from gguf_golf.formats.quant_types import register_with_gguf
from gguf_golf.models.gguf_file import open_gguf, read_gguf


def split(path: Path, folder: Path, max_bytes: int) -> list[Path]:
    """Write the parts of `path` into `folder`, each with at most `max_bytes` of tensors; returns them in order.

    A single tensor larger than that is a part by itself. Tensors are copied as they are, one at a time.
    Raises InputError as `open_gguf` does.
    """
    model = open_gguf(path, allow_requantize=True)
    register_with_gguf()
    writer = GGUFWriter(folder / path.name, model.architecture, split_max_size=max_bytes, use_temp_file=False)
    for field in model.metadata:
        if field.key != gguf.Keys.General.ARCHITECTURE:  # the writer has put it there
            writer.add_key_value(field.key, field.value, field.type, field.sub_type)
    for tensor in read_gguf(path).tensors:  # their data are maps of the file
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob(f"{path.stem}-*-of-*.gguf"))
