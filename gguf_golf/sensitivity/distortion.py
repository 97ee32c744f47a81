"""How far each type moves a tensor's weights: really quantized, compared under the importance of the input channels.

The measure of error everywhere in this room is E = sum h (w - w')^2 / sum h w^2, with h = E[x^2] of the weight's input
channel: the relative squared error of the layer's output if inputs were uncorrelated. Error feedback makes errors that
are correlated on purpose: such types are judged by (w - w') H (w - w')^T under the Hessian H = E[x x^T] instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.feedback import Prepared
from gguf_golf.calibrate.feedback import quantize as encode_with_feedback
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.models import LazyTensor
from gguf_golf.runtime import ggml

FloatArray = NDArray[np.float32]

SAMPLE_WEIGHTS = 1 << 16
"""Weights of a tensor that each type is tried on: evenly spaced rows."""

CANDIDATES = tuple(
    sorted(
        (t for t in types.ALL.values() if t.holds_weights and t.is_self_contained and t.bpw < 32),
        key=lambda t: (t.bpw, t.id),
    )
)
"""Every type that a weight can be stored in, smallest first."""


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor with the importance of their columns: `values` f32 [n, k], `importance` f32 [n_groups, k].

    Row i belongs to group `group[i]`: groups are experts, of which most tensors have one.
    """

    values: FloatArray
    importance: FloatArray | None
    group: NDArray[np.int64]

    @property
    def column_weight(self) -> FloatArray:
        """h of every weight: f32 [n, k] or broadcastable to it."""
        if self.importance is None:
            return np.ones((1, 1), np.float32)
        return self.importance[self.group]


def sample(tensor: LazyTensor, importance: FloatArray | None, weights: int = SAMPLE_WEIGHTS) -> Rows:
    """Evenly spaced rows of a tensor, about `weights` of its weights; all of it when it has no more."""
    count = min(tensor.n_rows, max(1, weights // tensor.shape[-1]))
    picked = np.unique((np.arange(count) + 0.5) * tensor.n_rows / count).astype(np.int64)
    if count == tensor.n_rows:
        values = tensor.load_rows(0, count)
    else:
        values = np.concatenate([tensor.load_rows(int(row), int(row) + 1) for row in picked])
    return Rows(values, importance, _groups(tensor, importance)[picked])


def whole(tensor: LazyTensor, importance: FloatArray | None) -> Rows:
    """All rows of a tensor."""
    return Rows(tensor.load_rows(0, tensor.n_rows), importance, _groups(tensor, importance))


def _groups(tensor: LazyTensor, importance: FloatArray | None) -> NDArray[np.int64]:
    n_groups = 1 if importance is None else len(importance)
    return np.arange(tensor.n_rows) * n_groups // tensor.n_rows


def stored(rows: Rows, quant_type: QuantType, threads: int) -> FloatArray:
    """The rows as they come back from this type: f32 [n, k]."""
    parts = [
        ggml.dequantize(quant_type.id, data, len(values), values.shape[1], threads)
        for values, data in _encoded(rows, quant_type, threads)
    ]
    return np.concatenate(parts)


def _encoded(rows: Rows, quant_type: QuantType, threads: int) -> Iterator[tuple[FloatArray, NDArray[np.uint8]]]:
    for group in np.unique(rows.group):
        values = rows.values[rows.group == group]
        importance = rows.importance[group] if rows.importance is not None and quant_type.is_quantized else None
        yield values, ggml.quantize(quant_type.id, values, importance, threads)


def relative_error(rows: Rows, new: FloatArray) -> float:
    """E of rows that became `new` f32 [n, k]; 0 for rows that are all zero."""
    weight = rows.column_weight
    energy = float((weight * np.square(rows.values)).sum(dtype=np.float64))
    error = float((weight * np.square(rows.values - new)).sum(dtype=np.float64))
    return error / energy if energy else 0.0


def errors(rows: Rows, threads: int, name: str = "", prepared: Prepared | None = None) -> dict[str, float]:
    """E of every type that the rows divide into, by name. Without importance, types that need one are left out.

    With `prepared` Hessians, TCQ types of the weight `name` are encoded with error feedback.
    """
    found = {}
    for quant_type in CANDIDATES:
        if not quant_type.divides(rows.values.shape[1]):
            continue
        if rows.importance is None and quant_type.needs_imatrix:
            continue
        error = None if prepared is None else _error_with_feedback(rows, quant_type, threads, name, prepared)
        found[quant_type.name] = relative_error(rows, stored(rows, quant_type, threads)) if error is None else error
    return found


def _error_with_feedback(
    rows: Rows, quant_type: QuantType, threads: int, name: str, prepared: Prepared
) -> float | None:
    """E under the Hessian of rows that are encoded with error feedback; None where there is no feedback for them."""
    k = rows.values.shape[1]
    n_groups = 1 if rows.importance is None else len(rows.importance)
    energy = error = 0.0
    for group in np.unique(rows.group):
        feedback = prepared.get(name, int(group), n_groups, quant_type, k)
        hessian = None if feedback is None else prepared.hessians.get(name, int(group))
        if feedback is None or hessian is None:
            return None
        values = rows.values[rows.group == group]
        data = encode_with_feedback(quant_type, values, feedback, threads)
        difference = values - ggml.dequantize(quant_type.id, data, len(values), k, threads)
        error += float(np.einsum("ij,ij->", difference @ hessian, difference, dtype=np.float64))
        energy += float((np.square(values, dtype=np.float64) @ np.diag(hessian)).sum())
    return error / energy if energy else 0.0


def slot_holds(quant_type: QuantType, row: FloatArray, importance: FloatArray | None, channel: int) -> bool:
    """Whether an outlier slot of a TCQ type carries the weight at `channel` of `row` f32 [k]."""
    if quant_type.tcq is None:
        return False
    fmt = quant_type.tcq
    data = ggml.quantize(quant_type.id, row[None], importance).reshape(-1, fmt.type_size)
    block = data[channel // fmt.block_size]
    positions = block[fmt.slot_offset : fmt.slot_offset + 2] if fmt.block_size == 256 else block[[fmt.slot_offset]] & 63
    return channel % fmt.block_size in positions.tolist()
