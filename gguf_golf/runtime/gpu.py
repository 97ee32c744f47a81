"""The CUDA backend's TCQ encoder: the CPU encoder's bytes, on a GPU."""

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import BuildError
from gguf_golf.formats import types
from gguf_golf.runtime import ggml, library

_DEVICE = 0


def check() -> None:
    """Encode a little on the GPU and on the CPU.

    Raises BuildError, saying what to do, where there is no CUDA runtime, no GPU, or one that writes other bytes.
    """
    rng = np.random.default_rng(0)
    rows = rng.standard_t(3, (4, 512)).astype(np.float32)
    importance = rng.gamma(0.3, 1.0, 512).astype(np.float32)
    for name in ("tcq3", "tcq3_64"):
        type_id = types.get(name).id
        require_equal(quantize(type_id, rows, importance), ggml.quantize(type_id, rows, importance))


def require_equal(on_gpu: NDArray[np.uint8], on_cpu: NDArray[np.uint8]) -> None:
    """Raises BuildError if a trial's bytes differ."""
    if not np.array_equal(on_gpu, on_cpu):
        raise BuildError("this GPU encodes other bytes than the CPU, which is a bug: run the command without --gpu")


def quantize(
    type_id: int, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Encode `rows` (n, k) to the TCQ type `type_id` on the first GPU; returns what `ggml.quantize` does.

    `importance` (k) weighs the squared error of each column. Raises InputError for an importance of another length or
    rows that the type's blocks do not divide, BuildError where there is no CUDA runtime or no GPU.
    """
    if importance is not None:
        importance = ggml.as_importance(importance, rows.shape[-1])
    weights = None if importance is None else importance.ctypes.data
    return _encode("ggml_backend_cuda_quantize_tcq", type_id, rows, weights)


def quantize_with_feedback(type_id: int, rows: NDArray[np.float32], feedback: ctypes.Structure) -> NDArray[np.uint8]:
    """The same with error feedback, by a `tcq_feedback` of ggml-tcq.h: what `calibrate.feedback.quantize` returns."""
    return _encode("ggml_backend_cuda_quantize_tcq_feedback", type_id, rows, ctypes.addressof(feedback))


def _encode(function: str, type_id: int, rows: NDArray[np.float32], weights: int | None) -> NDArray[np.uint8]:
    rows = ggml.as_rows(rows)
    n, k = rows.shape
    out = np.empty((n, types.get(type_id).row_bytes(k)), np.uint8)
    if not _encoder(function)(_DEVICE, type_id, rows.ctypes.data, out.ctypes.data, n, k, weights):
        raise BuildError("no NVIDIA GPU was found to encode on: run the command without --gpu")
    return out


@cache
def _encoder(function: str) -> "ctypes._NamedFuncPointer":
    library.libggml()  # which the backend needs
    path = library.folder() / "libggml-cuda.so"
    if not path.is_file():
        raise BuildError("--gpu needs a runtime with CUDA: run `gguf-golf runtime build --cuda`, or leave --gpu out")
    try:
        encoder = ctypes.CDLL(str(path))[function]
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
