"""How far each type moves a tensor's weights: really encoded, and judged by inputs that the encoder has not seen.

The measure of error everywhere in this room is E = sum |(w - w') x|^2 / sum |w x|^2 over some rows w of the tensor and
some inputs x of the layer: the relative squared error of its output. Error feedback makes errors that are correlated on
purpose; judged by the Hessian that it was computed from, it looks better than it is, hence the other inputs. Where a
tensor has none (`quick`, or an embedding that is only looked up), x is taken as uncorrelated, with the imatrix's
E[x^2]: E = sum h (w - w')^2 / sum h w^2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode import Encoder, Guide, round_trip
from gguf_golf.formats import quant_types, tcq
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor
from gguf_golf.sensitivity.layer_inputs import LayerInputs
from gguf_golf.sensitivity.rounding import SCALE_SPANS, rounded

FloatArray = NDArray[np.float32]

SAMPLE_WEIGHTS = 1 << 15
"""Weights of a tensor that each type is tried on: evenly spaced rows."""

SLAB_WEIGHTS = 1 << 22
"""Weights of a whole tensor that are handled at a time: bounds memory."""

CANDIDATES = tuple(
    sorted(
        (t for t in quant_types.ALL.values() if t.holds_weights and t.is_self_contained and t.bpw < 32),
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


@dataclass(frozen=True)
class Slab:
    """Rows first.. of one expert of a weight, and as they come back from a type: f32 [n, k] both."""

    first: int
    expert: int
    values: FloatArray
    stored: FloatArray


def slabs(tensor: LazyTensor, guide: Guide, quant_type: QuantType, encoder: Encoder) -> Iterator[Slab]:
    """A whole tensor as it comes back from a type, some rows at a time, in their order."""
    k, rows_each = tensor.shape[-1], tensor.n_rows // tensor.n_experts
    for expert in range(tensor.n_experts):
        guidance = guide.of(tensor.name, quant_type, k, expert, tensor.n_experts)
        end = (expert + 1) * rows_each
        for first in range(expert * rows_each, end, max(1, SLAB_WEIGHTS // k)):
            values = tensor.load_rows(first, min(first + max(1, SLAB_WEIGHTS // k), end))
            yield Slab(first, expert, values, round_trip(encoder, values, quant_type, guidance))


class Judge:
    """Measures how far the output of a layer moves, by `rows` of its weights and some of its inputs."""

    def __init__(self, rows: Rows, inputs: LayerInputs | None = None) -> None:
        self._rows = rows
        reached = {} if inputs is None else dict(inputs.experts(rows.weight))
        self._inputs = {expert: x for expert, x in reached.items() if (rows.expert == expert).any()}
        self._energy = self._squared_output(rows.values)

    def error(self, new: FloatArray) -> float:
        """E of the rows that became `new` f32 [n, k]; 0 for rows that are all zero."""
        return self._squared_output(self._rows.values - new) / self._energy if self._energy else 0.0

    def rounding(self) -> dict[str, float]:
        """E of rounding the inputs instead, by activation type; empty where there are none."""
        if not self._inputs or not self._energy:
            return {}
        return {
            activation: self._squared_output(self._rows.values, span) / self._energy
            for activation, span in SCALE_SPANS.items()
            if self._rows.values.shape[1] % span == 0
        }

    def _squared_output(self, values: FloatArray, span: int | None = None) -> float:
        """Sum of squares of the layer's output with these weights, or, with a `span`, of what rounding changes in it.

        A rarely chosen expert counts by how rarely it is chosen.
        """
        if not self._inputs:
            return float((self._rows.column_weight * np.square(values)).sum(dtype=np.float64))
        total = 0.0
        for expert, x in self._inputs.items():
            moved = x if span is None else rounded(x, span) - x
            total += float(np.square(values[self._rows.expert == expert] @ moved.T).sum(dtype=np.float64))
        return total


def errors(rows: Rows, encoder: Encoder, judge: Judge, candidates: Sequence[QuantType]) -> dict[str, float]:
    """E of every candidate that the rows divide into, by name. Without importance, types that need one are left out."""
    by_type = {}
    for quant_type in candidates:
        if not quant_type.divides(rows.values.shape[1]):
            continue
        if quant_type.needs_imatrix and rows.importance is None:
            continue
        by_type[quant_type.name] = judge.error(decoded(rows, quant_type, encoder))
    return by_type


def slot_holds(rows: Rows, quant_type: QuantType, channel: int, encoder: Encoder) -> bool:
    """Whether an outlier slot of a TCQ type carries the weight at `channel` of the first row."""
    fmt = quant_type.tcq
    if fmt is None:
        return False
    guidance = rows.guide.of(rows.weight, quant_type, rows.values.shape[1], int(rows.expert[0]), rows.n_experts)
    data = encoder.encode(rows.values[:1], quant_type, guidance).reshape(-1, fmt.type_size)
    block = data[channel // fmt.block_size]
    positions, _ = tcq.slot_fields(fmt, block[None])
    return channel % fmt.block_size in positions[0].tolist()
