"""ggml's codecs through ctypes: quantize and dequantize, with threads over slabs of rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.runtime.library import libggml
from gguf_golf.threads import resolve

# weights per slab: large enough that the call costs nothing, small enough that threads finish together
_SLAB = 1 << 16

# importances up to 2^40, and down to 2^-40, change no type's bytes by their size
_HARMLESS_EXPONENT = 40


def quantize(
    type_id: int,
    rows: NDArray[np.float32],
    importance: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Quantize `rows` (n, k) to the type `type_id`; returns bytes (n, row_bytes).

    `importance` (k) weighs the squared error of each column, as an imatrix does. The result does not depend on
    `threads` (default: all CPUs). Raises InputError for a type that has no quantizer or wants an importance that
    is not given, and for rows that its blocks do not divide.
    """
    rows = as_rows(rows)
    n, k = rows.shape
    quant_type = quant_types.get(type_id)
    if not quant_type.holds_weights:
        raise InputError(f"{quant_type.name} is not a type for weights: ggml has no quantizer for it")
    out = np.empty((n, quant_type.row_bytes(k)), np.uint8)
    if quant_type.name == "f32":
        out[:] = rows.view(np.uint8)
        return out
    if importance is not None:
        importance = as_importance(importance, k)
    elif libggml().ggml_quantize_requires_imatrix(type_id):
        raise InputError(f"{quant_type.name} cannot be made without an importance matrix: give --imatrix")
    weights = None if importance is None else importance.ctypes.data

    def slab(start: int, stop: int) -> None:
        libggml().ggml_quantize_chunk(type_id, rows.ctypes.data, out.ctypes.data, start * k, stop - start, k, weights)

    _over_slabs(slab, n, k, threads)
    return out


def dequantize(
    type_id: int, data: NDArray[np.uint8], n: int, k: int, threads: int | None = None
) -> NDArray[np.float32]:
    """The weights (n, k) of `n` rows stored as bytes of the type `type_id`; `data` has any shape.

    Raises InputError when `data` has not exactly n rows of k weights, or the type cannot be dequantized.
    """
    quant_type = quant_types.get(type_id)
    row_bytes = quant_type.row_bytes(k)
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != n * row_bytes:
        raise InputError(f"{n} rows of {k} {quant_type.name} weights are {n * row_bytes} bytes, not {data.size}")
    if quant_type.name == "f32":
        return data.view(np.float32).reshape(n, k).copy()
    to_float = libggml().ggml_get_type_traits(type_id).contents.to_float
    if not to_float:
        raise InputError(f"{quant_type.name} cannot be dequantized")
    out = np.empty((n, k), np.float32)

    def slab(start: int, stop: int) -> None:
        to_float(data.ctypes.data + start * row_bytes, out.ctypes.data + start * k * 4, (stop - start) * k)

    _over_slabs(slab, n, k, threads)
    return out


def _over_slabs(work: Callable[[int, int], None], n: int, k: int, threads: int | None) -> None:
    """Call work(start, stop) for slabs that cover rows 0 to n. ctypes gives up the GIL, so threads run at once."""
    step = max(1, _SLAB // max(1, k))
    starts = range(0, n, step)
    n_threads = min(len(starts), resolve(threads))
    if n_threads < 2:  # a thread costs more than a small slab
        for start in starts:
            work(start, min(n, start + step))
        return
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(lambda start: work(start, min(n, start + step)), starts):
            pass


def as_rows(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix (n, k) as ggml wants it: f32, rows one after the other. Raises InputError for another number of axes."""
    if array.ndim != 2:
        raise InputError(f"expected a matrix of rows, got an array of shape {array.shape}")
    return np.ascontiguousarray(array, np.float32)


def as_importance(importance: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The importance of `k` columns as ggml wants it. Raises InputError for another length.

    Only ratios matter, but some of ggml's quantizers compute in F32 with products of an importance and squared weights:
    values of extreme size are multiplied by a power of two.
    """
    importance = np.ascontiguousarray(importance, np.float32)
    if importance.shape != (k,):
        raise InputError(f"importance has shape {importance.shape}, and the rows have {k} columns")
    exponent = int(np.frexp(importance.max(initial=0))[1])
    return importance if abs(exponent) <= _HARMLESS_EXPONENT else np.ldexp(importance, -exponent)
