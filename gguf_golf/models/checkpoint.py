"""The weights of a Hugging Face directory: safetensors in one file or in shards, located but not read.

The official library neither reads BF16 into NumPy nor tells where a tensor lies in the file, so it validates the
header (bounds, overlaps, overflow) and gguf-py's reader says where the bytes are.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf.utility import LocalTensor, SafetensorsLocal
from safetensors import SafetensorError, safe_open

from gguf_golf.errors import InputError
from gguf_golf.models.model import FloatArray
from gguf_golf.models.unsupported import UnsupportedError

INDEX_NAME = "model.safetensors.index.json"

FLOAT_DTYPES = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}  # BF16: raw bits, NumPy has no such type


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor of a checkpoint lies, and how to read some of its rows."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int  # bytes from the start of the file

    def read_rows(self, rows: slice | np.ndarray) -> FloatArray:
        """f32 (n, cols) of the given rows of this matrix (a vector is one row), in fresh memory."""
        # The mapping lives for this one read, so pages of earlier tensors do not pile up in the process.
        flat = (int(np.prod(self.shape[:-1], dtype=np.int64)), self.shape[-1])
        data = np.memmap(self.path, dtype=FLOAT_DTYPES[self.dtype], mode="r", offset=self.offset, shape=flat)
        return to_float32(data[rows], self.dtype)


def to_float32(data: np.ndarray, dtype: str) -> FloatArray:
    """Widen BF16 (given as uint16 bits), F16 or F32 to f32, exactly, in fresh memory."""
    if dtype == "BF16":  # BF16 is the upper half of an F32
        bits: npt.NDArray[np.uint32] = np.left_shift(data, 16, dtype=np.uint32)
        return bits.view(np.float32)
    return data.astype(np.float32)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that make up the checkpoint. Raises InputError if there are none, or one is missing."""
    index_path = directory / INDEX_NAME
    if index_path.is_file():
        names = sorted(set(_weight_map(index_path).values()))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise InputError(
                f"{directory}: {len(missing)} of {len(names)} shards are missing ({', '.join(missing[:3])}); "
                "download them into this directory"
            )
        return [directory / name for name in names]
    files = sorted(directory.glob("model*.safetensors"))
    if len(files) > 1:
        raise InputError(f"{directory}: {len(files)} model*.safetensors files but no {INDEX_NAME}; download it too")
    if not files and any(directory.glob("pytorch_model*.bin")):
        raise UnsupportedError(f"{directory} has its weights as pytorch_model.bin, not safetensors")
    if not files:
        raise InputError(f"{directory}: no model.safetensors or {INDEX_NAME}; download the weights as safetensors")
    return files


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """All tensors of the checkpoint by their Hugging Face name.

    Raises InputError for a missing, truncated or foreign file, and where index and shards disagree.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(directory):
        for name, tensor in _file_tensors(path).items():
            if name in tensors:
                raise InputError(
                    f"{path}: tensor {name} is also in {tensors[name].path.name}; download the shards again"
                )
            tensors[name] = StoredTensor(name, tensor.dtype, tensor.shape, path, tensor.data_range.offset)
    index_path = directory / INDEX_NAME
    if index_path.is_file():
        promised = set(_weight_map(index_path))
        if absent := sorted(promised - tensors.keys()):
            raise InputError(
                f"{index_path} names {len(absent)} tensors that no shard holds ({absent[0]}, ...); "
                "the shards and the index are of different versions: download both again"
            )
    return tensors


def _weight_map(index_path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise TypeError("weight_map is no table of file names")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index_path} is damaged ({error}); download it again") from error
    return dict(weight_map)


def _file_tensors(path: Path) -> dict[str, LocalTensor]:
    try:
        with safe_open(path, framework="numpy"):
            pass
        tensors: dict[str, LocalTensor] = SafetensorsLocal(path).tensors
        return tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} ({path.stat().st_size} bytes) is truncated or is no safetensors file ({error}); download it again"
        ) from error
