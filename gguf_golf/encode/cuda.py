"""TCQ's encoder on an NVIDIA GPU (ggml-cuda's tcq-encode.cu); other types are encoded on the CPU."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode import feedback
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.encode.guide import UNGUIDED, Guidance
from gguf_golf.errors import BuildError
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.runtime import abi, ggml, library

_DEVICE = 0


class CudaEncoder:
    """An `Encoder` on the first GPU. It proves its bytes when it is made.

    Raises BuildError, saying what to do, where there is no CUDA runtime, no GPU, or one that writes other bytes.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._cpu = CpuEncoder(threads)
        self.threads = self._cpu.threads
        self._prove()

    def encode(
        self, rows: NDArray[np.float32], quant_type: QuantType, guidance: Guidance = UNGUIDED
    ) -> NDArray[np.uint8]:
        """See `Encoder.encode`."""
        if not quant_type.tcq:
            return self._cpu.encode(rows, quant_type, guidance)
        rows = ggml.as_rows(rows)
        if guidance.feedback is not None:
            feedback.check(quant_type, rows, guidance.feedback)
            arguments = guidance.feedback.arguments()
            return _encode("ggml_backend_cuda_quantize_tcq_feedback", quant_type, rows, ctypes.addressof(arguments))
        if guidance.importance is None:
            return _encode("ggml_backend_cuda_quantize_tcq", quant_type, rows, None)
        importance = ggml.as_importance(guidance.importance, rows.shape[1])
        return _encode("ggml_backend_cuda_quantize_tcq", quant_type, rows, importance.ctypes.data)

    def _prove(self) -> None:
        """Encode a little on the GPU and on the CPU, with and without error feedback."""
        rng = np.random.default_rng(0)
        rows = rng.standard_t(3, (4, 512)).astype(np.float32)
        importance = rng.gamma(0.3, 1.0, 512).astype(np.float32)
        x = rng.standard_normal((600, 512)) @ rng.standard_normal((512, 512))
        for quant_type in (types.get("tcq3"), types.get("tcq3_64")):
            factored = feedback.factor_hessian(x.T @ x / len(x), quant_type.block_size)
            for guidance in (Guidance(importance), Guidance(feedback=factored)):
                on_gpu, on_cpu = (encoder.encode(rows, quant_type, guidance) for encoder in (self, self._cpu))
                if not np.array_equal(on_gpu, on_cpu):
                    raise BuildError("this GPU encodes other bytes than the CPU, which is a bug: use --device cpu")


def _encode(function: str, quant_type: QuantType, rows: NDArray[np.float32], guidance: int | None) -> NDArray[np.uint8]:
    """`guidance` is the address of what the function takes: f32 [k], or a `tcq_feedback`."""
    n, k = rows.shape
    out = np.empty((n, quant_type.row_bytes(k)), np.uint8)
    if not _function(function)(_DEVICE, quant_type.id, rows.ctypes.data, out.ctypes.data, n, k, guidance):
        raise BuildError("no NVIDIA GPU was found to encode on: use --device cpu")
    return out


def _function(name: str) -> Callable[..., bool]:
    return cast(Callable[..., bool], getattr(_libcuda(), name))


@cache
def _libcuda() -> ctypes.CDLL:
    library.libggml()  # which the backend needs
    path = library.folder() / "libggml-cuda.so"
    if not path.is_file():
        raise BuildError(
            "--device cuda needs a runtime with CUDA: run `gguf-golf runtime build --cuda`, or use --device cpu"
        )
    try:
        return abi.declare(ctypes.CDLL(str(path)), abi.CUDA)
    except OSError as error:
        raise BuildError(f"{path} cannot be loaded: {error}") from None
