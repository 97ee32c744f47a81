"""Where every byte of a GGUF file goes, before any of them is computed: exact sizes for planning and for writing."""

from collections.abc import Sequence
from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from gguf_golf.container.tensors import TensorInfo
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import MetadataField
from gguf_golf.models.gguf_header import header_bytes

MAX_NAME_BYTES = 63


@dataclass(frozen=True)
class Layout:
    """A GGUF file's header bytes, and where each tensor's data starts, in bytes from the start of the file."""

    header: bytes
    offsets: dict[str, int]
    sizes: dict[str, int]
    file_bytes: int


def lay_out(tensors: Sequence[TensorInfo], metadata: Sequence[MetadataField]) -> Layout:
    """Lay out a file with this metadata and these tensors, in their order.

    Raises InputError for a name that GGUF cannot hold or that two tensors have, and for rows that a type's blocks do
    not divide.
    """
    quant_types.register_with_gguf()
    writer = gguf.GGUFWriter(path=None, arch="")
    writer.kv_data[0].clear()
    for field in metadata:
        if field.type is GGUFValueType.ARRAY and not field.value:
            continue  # GGUF cannot say the element type of an empty array
        writer.add_key_value(field.key, field.value, field.type, field.sub_type)
    offsets, sizes = {}, {}
    offset = 0
    for tensor in tensors:
        if not tensor.name or len(tensor.name.encode()) > MAX_NAME_BYTES:
            raise InputError(f"tensor name {tensor.name!r} does not fit GGUF's {MAX_NAME_BYTES} bytes")
        if tensor.name in offsets:
            raise InputError(f"two tensors are named {tensor.name}")
        size, ggml_type = tensor.n_bytes, GGMLQuantizationType(tensor.type.id)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, ggml_type)
        offsets[tensor.name], sizes[tensor.name] = offset, size
        offset += tensor.padded_bytes
    header = header_bytes(writer)
    start = gguf.GGUFWriter.ggml_pad(len(header), gguf.GGUF_DEFAULT_ALIGNMENT)
    return Layout(
        header=header.ljust(start, b"\0"),
        offsets={name: start + at for name, at in offsets.items()},
        sizes=sizes,
        file_bytes=start + offset,
    )
