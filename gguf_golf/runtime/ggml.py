"""ggml's number formats through ctypes: names and sizes of types, quantize, dequantize. Threads over slabs of rows."""

import ctypes
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.runtime.library import libggml
from gguf_golf.runtime.source import source_dir
from gguf_golf.threads import resolve

# weights in a slab: large enough that the call costs nothing, small enough that threads end together
_SLAB = 1 << 16

_FLOATS = (0, 1, 30)  # F32, F16, BF16
_ACTIVATIONS = (9, 15)  # Q8_1, Q8_K: ggml makes them of activations while it multiplies, never of weights

_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits` of ggml/include/ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _TO_FLOAT),
        ("from_float_ref", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class TypeTraits:
    """What ggml itself says of a type."""

    id: int
    name: str
    block_size: int  # weights in a block
    type_size: int  # bytes of a block

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return 8 * self.type_size / self.block_size

    def row_bytes(self, k: int) -> int:
        """Bytes of a row of `k` weights. Raises InputError when blocks do not divide it."""
        if k % self.block_size:
            raise InputError(f"a row of {k} weights does not divide into {self.name} blocks of {self.block_size}")
        return k // self.block_size * self.type_size


@cache
def type_traits(type_id: int) -> TypeTraits:
    """The type with ggml's number `type_id`. Raises InputError when the runtime has none."""
    raw = _raw_traits(type_id) if type_id in type_ids() else None
    if raw is None or raw.type_name is None:
        raise InputError(f"the runtime has no type {type_id}")
    return TypeTraits(type_id, raw.type_name.decode(), raw.blck_size, raw.type_size)


@cache
def type_ids() -> tuple[int, ...]:
    """The numbers of all types in the patched ggml.h, ascending.

    From the header because the library has no count of them, and aborts the process when asked for one too many.
    """
    header = (source_dir() / "ggml" / "include" / "ggml.h").read_text()
    return tuple(sorted(int(number) for number in re.findall(r"^\s*GGML_TYPE_(?!COUNT)\w+\s*=\s*(\d+)", header, re.M)))


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
    traits = type_traits(type_id)
    if type_id in _ACTIVATIONS or not (_raw_traits(type_id).is_quantized or type_id in _FLOATS):
        raise InputError(f"{traits.name} is no type for weights: ggml has no quantizer for it")
    out = np.empty((n, traits.row_bytes(k)), np.uint8)
    if type_id == 0:
        out[:] = rows.view(np.uint8)
        return out
    if importance is not None:
        importance = as_importance(importance, k)
    elif _libggml().ggml_quantize_requires_imatrix(type_id):
        raise InputError(f"{traits.name} cannot be made without an importance matrix: give --imatrix")
    weights = None if importance is None else importance.ctypes.data

    def slab(start: int, stop: int) -> None:
        _libggml().ggml_quantize_chunk(type_id, rows.ctypes.data, out.ctypes.data, start * k, stop - start, k, weights)

    _over_slabs(slab, n, k, threads)
    return out


def dequantize(
    type_id: int, data: NDArray[np.uint8], n: int, k: int, threads: int | None = None
) -> NDArray[np.float32]:
    """The weights (n, k) of `n` rows stored as bytes of the type `type_id`; `data` has any shape.

    Raises InputError when `data` has not exactly n rows of k weights, or the type cannot be dequantized.
    """
    traits = type_traits(type_id)
    row_bytes = traits.row_bytes(k)
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != n * row_bytes:
        raise InputError(f"{n} rows of {k} {traits.name} weights are {n * row_bytes} bytes, not {data.size}")
    if type_id == 0:
        return data.view(np.float32).reshape(n, k).copy()
    to_float = _raw_traits(type_id).to_float
    if not to_float:
        raise InputError(f"{traits.name} cannot be dequantized")
    out = np.empty((n, k), np.float32)

    def slab(start: int, stop: int) -> None:
        to_float(data.ctypes.data + start * row_bytes, out.ctypes.data + start * k * 4, (stop - start) * k)

    _over_slabs(slab, n, k, threads)
    return out


def _over_slabs(work: Callable[[int, int], None], n: int, k: int, threads: int | None) -> None:
    """Call work(start, stop) for slabs that cover rows 0 to n. ctypes gives up the GIL, so threads run at once."""
    step = max(1, _SLAB // max(1, k))
    starts = range(0, n, step)
    with ThreadPoolExecutor(resolve(threads)) as pool:
        for _ in pool.map(lambda start: work(start, min(n, start + step)), starts):
            pass


def as_rows(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix (n, k) as ggml wants it: f32, rows one after the other. Raises InputError for another number of axes."""
    if array.ndim != 2:
        raise InputError(f"expected a matrix of rows, got an array of shape {array.shape}")
    return np.ascontiguousarray(array, np.float32)


def as_importance(importance: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The importance of `k` columns as ggml wants it. Raises InputError when there are not so many."""
    importance = np.ascontiguousarray(importance, np.float32)
    if importance.shape != (k,):
        raise InputError(f"importance has shape {importance.shape}, and the rows have {k} columns")
    return importance


def _raw_traits(type_id: int) -> Any:
    return _libggml().ggml_get_type_traits(type_id).contents


@cache
def _libggml() -> ctypes.CDLL:
    library = libggml()
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *(ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
        ctypes.c_void_p,
    ]
    return library
