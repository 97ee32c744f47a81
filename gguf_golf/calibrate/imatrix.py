"""Read and write importance matrices in llama.cpp's GGUF format; collecting them is `collect.py`'s job.

An entry holds, for one weight tensor, the sums of squared activations of each input channel, and the number of rows
that were summed: tensors `<name>.in_sum2` f32 [n_mat, k] and `<name>.counts` f32 [n_mat, 1] (llama.cpp tools/imatrix).
n_mat is 1, or the number of experts. Our own `<name>.in_peak` f32 [n_mat, k], the largest |x|, is ignored by llama.cpp.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import DataError, InputError

KEY_DATASETS = "imatrix.datasets"
KEY_CHUNK_COUNT = "imatrix.chunk_count"
KEY_CHUNK_SIZE = "imatrix.chunk_size"
SUFFIX_SUM = ".in_sum2"
SUFFIX_COUNT = ".counts"
SUFFIX_PEAK = ".in_peak"


@dataclass
class ImatrixEntry:
    """Statistics of the inputs of one weight tensor: `in_sum2` f32 or f64 [n_mat, k], `counts` int64 [n_mat or 1]."""

    in_sum2: NDArray[np.floating]
    counts: NDArray[np.int64]
    peak: NDArray[np.float32] | None = None


@dataclass
class Imatrix:
    """All entries by weight name, with what they were collected on."""

    entries: dict[str, ImatrixEntry]
    datasets: list[str] = field(default_factory=list)
    chunk_count: int = 0
    chunk_size: int = 512

    def importance(self, name: str) -> NDArray[np.float32]:
        """Mean squared activation f32 [n_mat, k] of the named weight tensor.

        An expert that was never chosen has no data: it gets ones (all channels alike), as in llama-quantize.
        Raises InputError if the imatrix has no such entry.
        """
        if name not in self.entries:
            raise InputError(f"the imatrix has no entry for {name}; was it collected on the same architecture?")
        entry = self.entries[name]
        counts = np.broadcast_to(entry.counts.reshape(-1, 1), (len(entry.in_sum2), 1))
        mean = np.where(counts > 0, entry.in_sum2 / np.maximum(counts, 1), 1.0)
        return mean.astype(np.float32)


def read(path: str | Path) -> Imatrix:
    """Read a GGUF imatrix, ours or llama-imatrix's. Raises InputError on a foreign, old (.dat) or damaged file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(
                f"{path}: not a GGUF imatrix; an old .dat file converts with "
                "llama-imatrix --in-file OLD.dat -o NEW.gguf"
            )
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:
        raise InputError(f"{path}: damaged GGUF file ({error})") from error
    general_type = reader.get_field(gguf.Keys.General.TYPE)
    if general_type is None or general_type.contents() != "imatrix":
        raise InputError(f"{path}: a GGUF file, but not an imatrix; make one with gguf-golf imatrix")
    tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
    entries = {}
    for name, sums in tensors.items():
        if not name.endswith(SUFFIX_SUM):
            continue
        weight = name.removesuffix(SUFFIX_SUM)
        if weight + SUFFIX_COUNT not in tensors:
            raise InputError(f"{path}: {name} has no {weight}{SUFFIX_COUNT} beside it")
        in_sum2 = sums.reshape(-1, sums.shape[-1])
        if not np.isfinite(in_sum2).all():
            raise DataError(f"{path}: {name} holds NaN or Inf; collect the imatrix again")
        counts = np.rint(tensors[weight + SUFFIX_COUNT].reshape(-1)).astype(np.int64)
        peak = tensors.get(weight + SUFFIX_PEAK)
        entries[weight] = ImatrixEntry(in_sum2, counts, None if peak is None else peak.reshape(in_sum2.shape))
    if not entries:
        raise InputError(f"{path}: the imatrix is empty")

    def value(key: str, default: int) -> int:
        found = reader.get_field(key)
        return default if found is None else int(found.contents())

    datasets = reader.get_field(KEY_DATASETS)
    names = [] if datasets is None else list(datasets.contents())
    return Imatrix(entries, names, value(KEY_CHUNK_COUNT, 0), value(KEY_CHUNK_SIZE, 512))


def write(imatrix: Imatrix, path: str | Path) -> None:
    """Write `imatrix` as llama.cpp does; the file appears whole or not at all."""
    path = Path(path)
    aside = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(aside, arch="")
    # GGUFWriter always states an architecture; an imatrix has none
    writer.kv_data[0].pop(gguf.Keys.General.ARCHITECTURE, None)
    writer.add_type("imatrix")
    writer.add_array(KEY_DATASETS, imatrix.datasets)
    writer.add_uint32(KEY_CHUNK_COUNT, imatrix.chunk_count)
    writer.add_uint32(KEY_CHUNK_SIZE, imatrix.chunk_size)
    for name in sorted(imatrix.entries):
        entry = imatrix.entries[name]
        writer.add_tensor(name + SUFFIX_SUM, np.ascontiguousarray(entry.in_sum2, np.float32))
        writer.add_tensor(name + SUFFIX_COUNT, entry.counts.astype(np.float32).reshape(-1, 1))
        if entry.peak is not None:
            writer.add_tensor(name + SUFFIX_PEAK, np.ascontiguousarray(entry.peak, np.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error})") from error
