"""The CUDA backend's TCQ encoder: the CPU encoder's bytes, on a GPU."""

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import BuildError, InputError
from gguf_golf.formats import types
from gguf_golf.runtime import ggml, library

_DEVICE = 0


def check() -> None:
    """Raises BuildError, saying what to do, where there is no CUDA runtime or no GPU."""
    quantize(types.get("tcq1_64").id, np.zeros((1, 64), np.float32))


def quantize(
    type_id: int, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Encode `rows` (n, k) to the TCQ type `type_id` on the first GPU; returns what `ggml.quantize` does.

    `importance` (k) weighs the squared error of each column. Raises InputError for an importance of another length or
    rows that the type's blocks do not divide, and as `check`.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    n, k = rows.shape
    out = np.empty((n, ggml.type_traits(type_id).row_bytes(k)), np.uint8)
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        if importance.shape != (k,):
            raise InputError(f"importance has shape {importance.shape}, and the rows have {k} columns")
    weights = None if importance is None else importance.ctypes.data
    if not _encoder()(_DEVICE, type_id, rows.ctypes.data, out.ctypes.data, n, k, weights):
        raise BuildError("no NVIDIA GPU was found to encode on: run the command without --gpu")
    return out


@cache
def _encoder() -> "ctypes._FuncPointer":
    library.libggml()  # which the backend needs
    path = library.folder() / "libggml-cuda.so"
    if not path.is_file():
        raise BuildError("--gpu needs a runtime with CUDA: run `gguf-golf runtime build --cuda`, or leave --gpu out")
    try:
        encoder = ctypes.CDLL(str(path)).ggml_backend_cuda_quantize_tcq
    except OSError as error:
        raise BuildError(f"{path} cannot be loaded: {error}") from None
    encoder.restype = ctypes.c_bool
    encoder.argtypes = [
        *(ctypes.c_int, ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64),
        ctypes.c_void_p,
    ]
    return encoder
