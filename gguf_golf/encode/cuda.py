"""TCQ's encoder on an NVIDIA GPU (ggml-cuda's tcq-encode.cu); other types are encoded on the CPU."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode import feedback
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.encode.guide import UNGUIDED, Guidance
from gguf_golf.errors import BuildError, InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.runtime import abi, ggml, library

_DEVICE = 0


class OnDevice(Protocol):
    """An array in a GPU's memory, such as PyTorch's and CuPy's: the CUDA array interface."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


class CudaEncoder:
    """An `Encoder` on the first GPU. It proves its bytes when it is made.

    Raises BuildError, saying what to do, where there is no CUDA runtime, no GPU, or one that writes other bytes.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._cpu = CpuEncoder(threads)
        self.threads = self._cpu.threads
        self._prove()

    def encode(
        self, rows: NDArray[np.float32] | OnDevice, quant_type: QuantType, guidance: Guidance = UNGUIDED
    ) -> NDArray[np.uint8]:
        """See `Encoder.encode`. Rows for a TCQ type may also be in the GPU's memory, once all work on them is done."""
        if isinstance(rows, np.ndarray):
            if not quant_type.tcq:
                return self._cpu.encode(rows, quant_type, guidance)
            rows = ggml.as_rows(rows)
            n, k = rows.shape
            return _encode(rows.ctypes.data, n, k, quant_type, guidance)
        if not quant_type.tcq:
            raise InputError(f"{quant_type.name} is encoded on the CPU: give it rows in the CPU's memory")
        return _encode(*_locate(rows), quant_type, guidance)

    def _prove(self) -> None:
        """Encode a little on the GPU and on the CPU, with and without error feedback."""
        rng = np.random.default_rng(0)
        rows = rng.standard_t(3, (4, 512)).astype(np.float32)
        importance = rng.gamma(0.3, 1.0, 512).astype(np.float32)
        x = rng.standard_normal((600, 512)) @ rng.standard_normal((512, 512))
        for quant_type in (quant_types.get("tcq3"), quant_types.get("tcq3_64")):
            factored = feedback.factor_hessian(x.T @ x / len(x), quant_type.block_size)
            for guidance in (Guidance(importance), Guidance(feedback=factored)):
                on_gpu, on_cpu = (encoder.encode(rows, quant_type, guidance) for encoder in (self, self._cpu))
                if not np.array_equal(on_gpu, on_cpu):
                    raise BuildError("this GPU encodes other bytes than the CPU, which is a bug: use --device cpu")


def _locate(rows: OnDevice) -> tuple[int, int, int]:
    """Address, rows and columns of a matrix in the GPU's memory. Raises InputError unless it is f32, row after row."""
    array = rows.__cuda_array_interface__
    shape, strides = tuple(array["shape"]), array.get("strides")
    if len(shape) != 2 or array["typestr"] != "<f4" or strides not in (None, (4 * shape[1], 4)):
        raise InputError(
            f"rows on a GPU must be a matrix of contiguous f32 rows, not {array['typestr']} of shape {shape} "
            f"and strides {strides}"
        )
    return array["data"][0], *shape


def _encode(address: int, n: int, k: int, quant_type: QuantType, guidance: Guidance) -> NDArray[np.uint8]:
    """Rows f32 [n, k] at an address of the CPU's or the GPU's memory."""
    out = np.empty((n, quant_type.row_bytes(k)), np.uint8)
    name, given = "ggml_backend_cuda_quantize_tcq", None
    if guidance.feedback is not None:
        feedback.check(quant_type, k, guidance.feedback)
        name, arguments = "ggml_backend_cuda_quantize_tcq_feedback", guidance.feedback.arguments()
        given = ctypes.addressof(arguments)
    elif guidance.importance is not None:
        importance = ggml.as_importance(guidance.importance, k)
        given = importance.ctypes.data
    if not _function(name)(_DEVICE, quant_type.id, address, out.ctypes.data, n, k, given):
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
