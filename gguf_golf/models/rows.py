"""Rows of a checkpoint's tensors, rearranged on the fly: the pieces that architectures are described with.

A `Rows` reads f32 rows by slice or by index. Each combinator is itself a `Rows`; nothing is read before it is asked
for, and everything here pickles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gguf_golf.models.model import FloatArray, LazyTensor

Index = slice | npt.NDArray[np.int64]


class Rows(Protocol):
    """A tensor (..., rows, cols) whose rows can be read; leading axes are flattened, a vector is one row."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In NumPy's order, the contiguous axis last."""

    @property
    def dtype(self) -> str:
        """The ggml name of the stored type: BF16, F16, F32 or MXFP4."""

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


@dataclass(frozen=True, eq=False)
class _Constant:
    values: FloatArray
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read_rows(self, rows: Index) -> FloatArray:
        return self.values[np.newaxis][rows].copy()
