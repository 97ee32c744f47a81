"""The weights of a Hugging Face directory: safetensors in one file or in shards, located but not read.

The official library neither reads BF16 into NumPy nor tells where a tensor lies in the file, so it validates the
header (bounds, overlaps, overflow) and gguf-py's reader says where the bytes are.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.utility import LocalTensor, SafetensorsLocal
from safetensors import SafetensorError, safe_open

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config
from gguf_golf.models.model import FloatArray
from gguf_golf.models.unsupported import UnsupportedError

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

FLOAT_DTYPES = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F64": np.float64}
"""NumPy has no BF16: its raw bits. F64 is read as F32."""

INTEGER_DTYPES = {"U8": np.uint8, "I8": np.int8, "I16": np.int16, "I32": np.int32}
"""Of codes, and of MXFP4's bytes."""


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor of a checkpoint lies, and how to read some of its rows."""

    name: str
    stored_dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int  # bytes from the start of the file

    @property
    def dtype(self) -> str:
        """The ggml type that holds these values."""
        return "F32" if self.stored_dtype == "F64" else self.stored_dtype

    def read_rows(self, rows: slice | np.ndarray) -> FloatArray:
        """f32 (n, cols) of the given rows of this matrix (a vector is one row), in fresh memory."""
        # The mapping lives for this one read, so pages of earlier tensors do not pile up in the process.
        flat = (int(np.prod(self.shape[:-1], dtype=np.int64)), self.shape[-1])
        data = np.memmap(self.path, dtype=FLOAT_DTYPES[self.stored_dtype], mode="r", offset=self.offset, shape=flat)
        return to_float32(data[rows], self.stored_dtype)

    def read_columns(self, matrix: int, columns: np.ndarray) -> FloatArray:
        """f32 (rows, n) of the given columns of one of the matrices (matrices, rows, cols)."""
        data = np.memmap(self.path, FLOAT_DTYPES[self.stored_dtype], "r", self.offset, self.shape)
        return to_float32(data[matrix][:, columns], self.stored_dtype)

    def read_integers(self, rows: slice | np.ndarray, leading: int = 1) -> npt.NDArray[Any]:
        """The given rows of a tensor of integers, counted over the first `leading` axes: (n, *shape[leading:])."""
        flat = (int(np.prod(self.shape[:leading], dtype=np.int64)), *self.shape[leading:])
        return np.array(np.memmap(self.path, INTEGER_DTYPES[self.stored_dtype], "r", self.offset, flat)[rows])


def to_float32(data: np.ndarray, dtype: str) -> FloatArray:
    """Widen BF16 (given as uint16 bits) or F16 to f32, exactly, or round F64; in fresh memory."""
    if dtype == "BF16":  # BF16 is the upper half of an F32
        bits: npt.NDArray[np.uint32] = np.left_shift(data, 16, dtype=np.uint32)
        return bits.view(np.float32)
    with np.errstate(over="ignore"):  # an F64 beyond F32 becomes infinite, which LazyTensor refuses by name
        return data.astype(np.float32)


def weight_files(config: Config) -> list[Path]:
    """The safetensors files that transformers would load: model.safetensors, else the shards that the index names.

    Files beside them that are left alone (another precision, an index of other shards) go into the config's notes.
    Raises InputError if there are none, one is missing, or an adapter makes it unclear what the model is.
    """
    directory = config.directory
    files = _chosen_files(directory)
    _check_adapter(directory, has_weights=bool(files))
    if not files and any(directory.glob("pytorch_model*.bin")):
        raise UnsupportedError(f"{directory} has its weights as pytorch_model.bin, not safetensors")
    if not files and (directory / "consolidated.safetensors").is_file():
        raise InputError(
            f"{directory} has only Mistral's own layout (consolidated.safetensors); download {SINGLE_NAME}, or "
            f"{INDEX_NAME} and its shards"
        )
    if not files:
        raise InputError(f"{directory}: no {SINGLE_NAME} or {INDEX_NAME}; download the weights as safetensors")
    if beside := sorted({path.name for path in directory.glob("model*.safetensors")} - {path.name for path in files}):
        config.note(f"the weights are {files[0].name}{', ...' if files[1:] else ''}, like for transformers; not used: "
                    f"{', '.join(beside[:3])}{', ...' if beside[3:] else ''}")  # fmt: skip
    return files


def _chosen_files(directory: Path) -> list[Path]:
    single, index_path = directory / SINGLE_NAME, directory / INDEX_NAME
    if single.is_file():
        return [single]
    if index_path.is_file():
        names = sorted(set(_weight_map(index_path).values()))
        if missing := [name for name in names if not (directory / name).is_file()]:
            raise InputError(
                f"{directory}: {len(missing)} of {len(names)} shards are missing ({', '.join(missing[:3])}); "
                "download them into this directory"
            )
        return [directory / name for name in names]
    files = sorted(directory.glob("model*.safetensors"))
    if len(files) > 1:
        raise InputError(
            f"{directory}: {len(files)} model*.safetensors files ({files[0].name}, ...) but no {INDEX_NAME}; download "
            "it too, or leave only the file that is the model"
        )
    return files


def _check_adapter(directory: Path, *, has_weights: bool) -> None:
    if not any((directory / f"adapter_{part}").is_file() for part in ("config.json", "model.safetensors", "model.bin")):
        return
    if has_weights:
        raise InputError(
            f"{directory} holds weights and an adapter (adapter_config.json or adapter_model): remove the adapter's "
            "files if it is merged into the weights or not wanted, otherwise merge it first (peft: merge_and_unload)"
        )
    raise InputError(
        f"{directory} is an adapter, not a model: merge it into its base model first (peft: merge_and_unload) and give "
        "the merged checkpoint"
    )


def stored_tensors(config: Config) -> dict[str, StoredTensor]:
    """All tensors of the checkpoint by their Hugging Face name.

    Raises InputError for a missing, truncated or foreign file, and where index and shards disagree.
    """
    tensors: dict[str, StoredTensor] = {}
    files = weight_files(config)
    for path in files:
        for name, tensor in _file_tensors(path).items():
            if name in tensors:
                raise InputError(
                    f"{path}: tensor {name} is also in {tensors[name].path.name}; download the shards again"
                )
            tensors[name] = StoredTensor(name, tensor.dtype, tensor.shape, path, tensor.data_range.offset)
    index_path = config.directory / INDEX_NAME
    if index_path.is_file() and files != [config.directory / SINGLE_NAME]:
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
            raise TypeError("weight_map is not a table of file names")
        # shards lie beside their index; a path that leads elsewhere would read files that are not the checkpoint's
        if foreign := [
            n for n in weight_map.values() if n != Path(n).name or not 0 < len(n.encode()) < 256 or "\0" in n
        ]:
            raise ValueError(f"{foreign[0][:80]!r} does not name a file in its folder")
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
            f"{path} ({path.stat().st_size} bytes) is truncated or not a safetensors file ({error}); download it again"
        ) from error
