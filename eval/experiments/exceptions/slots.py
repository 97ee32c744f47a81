"""Outliers in the block: more bits for its worst weights, paid by zeroing its least important ones, or by bytes.

As MicroScopiQ (arXiv:2411.05282) has it, an outlier takes the bits of a pruned weight of its own block, twice the rate
in all; positions of both are stored. `added` stores the same outliers at the price of their bits, and prunes nothing.
Both on top of TCQ, whose blocks have slots already, encoded without feedback: it would be broken by the pruning.
"""

import math
from collections.abc import Iterator

import torch

from gguf_golf.formats import quant_types

from .bench import BASES, Bench, Cell, Weights
from .storage import Stored
from .subject import Matrix

EXPERIMENT = "slots"

SCALE_BYTES = 1
"""Of a block's outliers."""


def cells() -> Iterator[Cell]:
    """One, two and four outliers in a block, paid or added, at each rate."""
    for rate in BASES:
        for outliers in (1, 2, 4):
            for paid in (True, False):
                key = {"base": "uniform", "rate": rate, "fed": False, "outliers": outliers, "paid": paid}
                yield Cell(EXPERIMENT, key, _with, (rate, outliers, paid), 0 if outliers == 1 else 1)


def _with(bench: Bench, rate: int, outliers: int, paid: bool) -> Weights:
    stored = {m.name: _stored(bench, m, rate, outliers, paid) for m in bench.linear}
    return bench.assembled({**bench.uniform(rate, False), **stored})


def _stored(bench: Bench, matrix: Matrix, rate: int, outliers: int, paid: bool) -> Stored:
    coded = bench.storage.at(matrix, f"tcq{rate}", fed=False)
    quant_type, _ = quant_types.type_for_row(f"tcq{rate}", matrix.original.shape[1])
    block = quant_type.block_size
    importance = matrix.hessian.diagonal().expand_as(matrix.original).reshape(-1, block)
    original, found = (x.reshape(-1, block) for x in (matrix.original, coded.weights))
    worst = (importance * (original - found).square()).topk(outliers, dim=1).indices
    residual = (original - found).gather(1, worst)
    n_levels = 2**rate
    step = 2 * residual.abs().amax(1, keepdim=True).clamp(min=1e-30) / n_levels
    level = torch.floor(residual / step).clamp(-n_levels // 2, n_levels // 2 - 1) + 0.5
    restored = found.scatter_add(1, worst, level * step)
    position_bits = math.log2(block) * outliers
    bits = position_bits + outliers * rate
    if paid:
        cost = (importance * original.square()).scatter(1, worst, math.inf)
        restored = restored.scatter(1, cost.topk(outliers, dim=1, largest=False).indices, 0.0)
        bits = 2 * position_bits
    n_bytes = coded.n_bytes + math.ceil(len(original) * (bits / 8 + SCALE_BYTES))
    return Stored(restored.view_as(matrix.original), n_bytes)
