"""How far each type moves a tensor's weights: really encoded, compared under the importance of the input channels.

The measure of error everywhere in this room is E = sum h (w - w')^2 / sum h w^2, with h = E[x^2] of the weight's input
channel: the relative squared error of the layer's output if inputs were uncorrelated. Error feedback makes errors that
are correlated on purpose: such types are judged by (w - w') H (w - w')^T under the Hessian H = E[x x^T] instead.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode import Encoder, Guide, round_trip
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.models import LazyTensor

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
    """Rows of a weight and the guide to their inputs: `values` f32 [n, k]; row i is of expert `expert[i]`."""

    weight: str
    values: FloatArray
    expert: NDArray[np.int64]
    n_experts: int
    guide: Guide

    @property
    def importance(self) -> FloatArray | None:
        """E[x^2] per input channel, f32 [n_experts, k], if it is known."""
        return self.guide.importance(self.weight, self.values.shape[1], self.n_experts)

    @property
    def column_weight(self) -> FloatArray:
        """h of every weight: f32 [n, k] or broadcastable to it."""
        importance = self.importance
        return np.ones((1, 1), np.float32) if importance is None else importance[self.expert]

    def without_hessians(self) -> "Rows":
        """The same rows, to be encoded without error feedback."""
        return replace(self, guide=self.guide.without_hessians())


def sample(tensor: LazyTensor, guide: Guide, weights: int = SAMPLE_WEIGHTS) -> Rows:
    """Evenly spaced rows of a tensor, about `weights` of its weights; all of it when it has no more."""
    count = min(tensor.n_rows, max(1, weights // tensor.shape[-1]))
    if count == tensor.n_rows:
        return whole(tensor, guide)
    picked = np.unique((np.arange(count) + 0.5) * tensor.n_rows / count).astype(np.int64)
    values = np.concatenate([tensor.load_rows(int(row), int(row) + 1) for row in picked])
    return Rows(tensor.name, values, picked * tensor.n_experts // tensor.n_rows, tensor.n_experts, guide)


def whole(tensor: LazyTensor, guide: Guide) -> Rows:
    """All rows of a tensor."""
    experts = np.arange(tensor.n_rows) * tensor.n_experts // tensor.n_rows
    return Rows(tensor.name, tensor.load_rows(0, tensor.n_rows), experts, tensor.n_experts, guide)


def decoded(rows: Rows, quant_type: QuantType, encoder: Encoder) -> FloatArray:
    """The rows as they come back from this type: f32 [n, k]."""
    k = rows.values.shape[1]
    new = np.empty_like(rows.values)
    for expert in np.unique(rows.expert):
        guidance = rows.guide.of(rows.weight, quant_type, k, int(expert), rows.n_experts)
        of_expert = rows.expert == expert
        new[of_expert] = round_trip(encoder, rows.values[of_expert], quant_type, guidance)
    return new


def relative_error(rows: Rows, new: FloatArray) -> float:
    """E of rows that became `new` f32 [n, k]; 0 for rows that are all zero."""
    weight = rows.column_weight
    energy = float((weight * np.square(rows.values)).sum(dtype=np.float64))
    error = float((weight * np.square(rows.values - new)).sum(dtype=np.float64))
    return error / energy if energy else 0.0


def errors(rows: Rows, encoder: Encoder) -> dict[str, float]:
    """E of every type that the rows divide into, by name. Without importance, types that need one are left out."""
    by_type = {}
    for quant_type in CANDIDATES:
        if not quant_type.divides(rows.values.shape[1]):
            continue
        if quant_type.needs_imatrix and rows.importance is None:
            continue
        by_type[quant_type.name] = _error(rows, quant_type, encoder)
    return by_type


def _error(rows: Rows, quant_type: QuantType, encoder: Encoder) -> float:
    """E under the Hessians where every expert of the rows is encoded with error feedback, otherwise without any."""
    k, hessians = rows.values.shape[1], rows.guide.hessians
    energy = error = 0.0
    for expert in np.unique(rows.expert):
        guidance = rows.guide.of(rows.weight, quant_type, k, int(expert), rows.n_experts)
        hessian = None if hessians is None or guidance.feedback is None else hessians.get(rows.weight, int(expert))
        if hessian is None:
            plain = rows.without_hessians()
            return relative_error(plain, decoded(plain, quant_type, encoder))
        values = rows.values[rows.expert == expert]
        difference = values - round_trip(encoder, values, quant_type, guidance)
        error += float(np.einsum("ij,ij->", difference @ hessian, difference, dtype=np.float64))
        energy += float((np.square(values, dtype=np.float64) @ np.diag(hessian)).sum())
    return error / energy if energy else 0.0


def slot_holds(rows: Rows, quant_type: QuantType, channel: int, encoder: Encoder) -> bool:
    """Whether an outlier slot of a TCQ type carries the weight at `channel` of the first row."""
    fmt = quant_type.tcq
    if fmt is None:
        return False
    guidance = rows.guide.of(rows.weight, quant_type, rows.values.shape[1], int(rows.expert[0]), rows.n_experts)
    data = encoder.encode(rows.values[:1], quant_type, guidance).reshape(-1, fmt.type_size)
    block = data[channel // fmt.block_size]
    positions = block[fmt.slot_offset : fmt.slot_offset + 2] if fmt.block_size == 256 else block[[fmt.slot_offset]] & 63
    return channel % fmt.block_size in positions.tolist()
