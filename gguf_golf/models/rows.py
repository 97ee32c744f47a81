"""Rows of a checkpoint's tensors, rearranged on the fly: the pieces that architectures are described with.

A `Rows` reads f32 rows by slice or by index. Each combinator is itself a `Rows`; nothing is read before it is asked
for, and everything here pickles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gguf_golf.models.checkpoint import StoredTensor
from gguf_golf.models.model import FloatArray, LazyTensor

Index = slice | npt.NDArray[np.int64]


class Rows(Protocol):
    """A tensor (..., rows, cols) whose rows can be read; leading axes are flattened, a vector is one row."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In NumPy's order, the contiguous axis last."""

    @property
    def dtype(self) -> str:
        """The ggml type that holds these values exactly: BF16, F16 or F32."""

    def read_rows(self, rows: Index) -> FloatArray:
        """f32 (n, cols) in fresh memory."""


def lazy(rows: Rows, name: str) -> LazyTensor:
    """These rows as the tensor `name` of a GGUF."""
    return LazyTensor(name, rows.shape, rows.dtype, _Slice(rows))


def rows_of(rows: Rows, order: npt.NDArray[np.int64]) -> Rows:
    """The rows that `order` picks, counted over all leading axes: shape (*order.shape, cols)."""
    return _PickedRows(rows, order)


def columns_of(rows: Rows, order: npt.NDArray[np.int64]) -> Rows:
    """The columns that `order` picks, or the values of a vector: shape (..., len(order))."""
    return _PickedColumns(rows, order)


def stacked(matrices: Sequence[Rows]) -> Rows:
    """n matrices (rows, cols) of one shape as one tensor (n, rows, cols)."""
    return _Stacked(tuple(matrices))


def mapped(rows: Rows, function: Callable[[FloatArray], FloatArray]) -> Rows:
    """`function` of the values, row by row. It must be a function of a module, so that it pickles."""
    return _Mapped(rows, function)


def transposed(matrices: StoredTensor) -> Rows:
    """n stored matrices (n, cols, rows) as (n, rows, cols)."""
    return _Transposed(matrices)


def mxfp4(blocks: StoredTensor, scales: StoredTensor) -> Rows:
    """Bytes (n, rows, groups, 16) and (n, rows, groups) as the values (n, rows, groups * 32) that they stand for.

    A group of 32 shares the scale 2^(byte - 127); each byte holds two codes of 4 bits (OCP MX, E2M1), the lower first.
    """
    return _Mxfp4(blocks, scales)


def constant(values: FloatArray) -> Rows:
    """A small computed vector, stored as F32."""
    return _Constant(values)


@dataclass(frozen=True)
class _Slice:
    rows: Rows

    def __call__(self, first: int, last: int) -> FloatArray:
        return self.rows.read_rows(slice(first, last))


@dataclass(frozen=True, eq=False)
class _PickedRows:
    rows: Rows
    order: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.order.shape, self.rows.shape[-1])

    @property
    def dtype(self) -> str:
        return self.rows.dtype

    def read_rows(self, rows: Index) -> FloatArray:
        return self.rows.read_rows(self.order.reshape(-1)[rows])


@dataclass(frozen=True, eq=False)
class _PickedColumns:
    rows: Rows
    order: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.rows.shape[:-1], len(self.order))

    @property
    def dtype(self) -> str:
        return self.rows.dtype

    def read_rows(self, rows: Index) -> FloatArray:
        return self.rows.read_rows(rows)[:, self.order]


@dataclass(frozen=True)
class _Stacked:
    matrices: tuple[Rows, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.matrices), *self.matrices[0].shape)

    @property
    def dtype(self) -> str:
        return self.matrices[0].dtype

    def read_rows(self, rows: Index) -> FloatArray:
        n, each, cols = len(self.matrices), *self.matrices[0].shape
        wanted = np.arange(n * each)[rows]
        values = np.empty((len(wanted), cols), np.float32)
        for i in np.unique(wanted // each):
            inside = wanted // each == i
            values[inside] = self.matrices[i].read_rows(wanted[inside] - i * each)
        return values


@dataclass(frozen=True)
class _Mapped:
    rows: Rows
    function: Callable[[FloatArray], FloatArray]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    @property
    def dtype(self) -> str:
        return self.rows.dtype

    def read_rows(self, rows: Index) -> FloatArray:
        return self.function(self.rows.read_rows(rows))


@dataclass(frozen=True)
class _Transposed:
    matrices: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        n, cols, rows = self.matrices.shape
        return n, rows, cols

    @property
    def dtype(self) -> str:
        return self.matrices.dtype

    def read_rows(self, rows: Index) -> FloatArray:
        n, each, cols = self.shape
        wanted = np.arange(n * each)[rows]
        values = np.empty((len(wanted), cols), np.float32)
        for i in np.unique(wanted // each):
            inside = wanted // each == i
            values[inside] = self.matrices.read_columns(int(i), wanted[inside] - i * each).T
        return values


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


@dataclass(frozen=True)
class _Mxfp4:
    blocks: StoredTensor
    scales: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.blocks.shape[:-2], self.blocks.shape[-2] * 32)

    @property
    def dtype(self) -> str:
        return "BF16"  # which holds every one of these values exactly

    def read_rows(self, rows: Index) -> FloatArray:
        codes = self.blocks.read_integers(rows, 2)  # (n, groups, 16)
        scales = np.ldexp(np.float32(1), self.scales.read_integers(rows, 2).astype(np.int32) - 127)  # (n, groups)
        nibbles = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], 32)
        values = np.concatenate([E2M1, -E2M1])[nibbles] * scales[..., np.newaxis]
        return values.reshape(len(values), -1)


@dataclass(frozen=True, eq=False)
class _Constant:
    values: FloatArray
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read_rows(self, rows: Index) -> FloatArray:
        return self.values[np.newaxis][rows].copy()
