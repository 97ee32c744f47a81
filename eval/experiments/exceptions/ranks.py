"""Sensitivity ranks of tensors, rows, channels and single weights: how steep is the tail, how stable the ranking?

Damage is Fisher's diagonal form for the errors of tcq2 without feedback, calibrated by what each tensor alone was
measured to cost, on two halves of the calibration text. Then the single weights whose loss is predicted to cost most
are removed one at a time.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .bench import Bench, Cell, Weights, size
from .storage import Stored
from .subject import Matrix

EXPERIMENT = "ranks"

TAILS = (0.001, 0.01, 0.1)
REMOVED = 12


def cells() -> Iterator[Cell]:
    """The ranks, noted beside the file that they are of, then a cell for each removed weight."""
    yield Cell(EXPERIMENT, {"ranks": "tcq2"}, _ranks, (), 1)
    found: list[tuple[Matrix, int, int, float]] = []
    for i in range(REMOVED):
        yield Cell(EXPERIMENT, {"removed": i}, _without, (found, i), 1)


def _without(bench: Bench, found: list[tuple[Matrix, int, int, float]], i: int) -> Weights:
    found.extend(() if found else _heaviest(bench))
    matrix, row, channel, predicted = found[i]
    weights = matrix.original.clone()
    weights[row, channel] = 0
    facts: dict[str, Any] = {"matrix": matrix.name, "row": row, "channel": channel, "predicted": predicted}
    return Weights({matrix.name: weights}, 0, facts)


def _ranks(bench: Bench) -> Weights:
    stored = bench.storage.each(lambda m: bench.storage.at(m, "tcq2", False), bench.matrices)
    found: dict[str, Any] = {"by kind": _by_kind(bench, stored)}
    for level in ("tensor", "row", "channel", "weight"):
        halves: tuple[list[Tensor], list[Tensor]] = ([], [])
        counts: list[Tensor] = []
        for matrix in bench.matrices:
            for half in (0, 1):
                damage = _damage(bench, matrix, stored[matrix.name], half)
                items = {
                    "tensor": lambda d: d.sum().view(1),
                    "row": lambda d: d.sum(1),
                    "channel": lambda d: d.sum(0),
                    "weight": lambda d: d.flatten(),
                }[level](damage)
                halves[half].append(items.float())
            counts.append(torch.full((len(items),), matrix.original.numel() / len(items), device=items.device))
        first, second = (torch.cat(half) for half in halves)
        sizes = torch.cat(counts)
        found[level] = {
            "items": len(first),
            "share of damage": {str(tail): _held(first + second, sizes, tail) for tail in TAILS},
            "spearman": _spearman(first, second),
            "overlap of the top 1%": _overlap(first / sizes, second / sizes, 0.01),
        }
    return Weights({name: s.weights for name, s in stored.items()}, size(stored), {"ranks": found})


def _damage(bench: Bench, matrix: Matrix, stored: Stored, half: int) -> Tensor:
    """f32 [n, k]: the diagonal of Fisher's form, from one half of the text."""
    error = (matrix.original - stored.weights).square()
    damage = matrix.gradients[half].float()[:, None] * error * (2 * matrix.source.halves[half].diagonal().float())
    if matrix.lookups is not None:
        damage = damage + matrix.lookups * error
    return damage / 2 * bench.scale(matrix)


def _by_kind(bench: Bench, stored: dict[str, Stored]) -> dict[str, float]:
    """Predicted KLD of each kind per million weights."""
    damage: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for matrix in bench.matrices:
        kind = matrix.name.rpartition(".")[2] if not matrix.tensor.endswith("_proj") else matrix.tensor.split(".")[-1]
        error = matrix.original - stored[matrix.name].weights
        damage[kind] = damage.get(kind, 0.0) + bench.curve(matrix.tensor)(matrix.damage(error))
        sizes[kind] = sizes.get(kind, 0) + error.numel()
    return {kind: damage[kind] / sizes[kind] * 1e6 for kind in damage}


def _held(damage: Tensor, sizes: Tensor, tail: float) -> float:
    """The share of damage in the items with the most damage per weight that together have `tail` of all weights."""
    order = torch.argsort(damage / sizes, descending=True)
    inside = sizes[order].double().cumsum(0) <= tail * sizes.double().sum()
    return float(damage[order][inside].double().sum() / damage.double().sum())


def _spearman(first: Tensor, second: Tensor) -> float:
    a, b = (torch.argsort(torch.argsort(x)).double() for x in (first, second))
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def _overlap(first: Tensor, second: Tensor, tail: float) -> float:
    n = max(1, round(tail * len(first)))
    a, b = (torch.zeros_like(x, dtype=torch.bool).index_fill_(0, x.topk(n).indices, True) for x in (first, second))
    return float((a & b).sum() / n)


def _heaviest(bench: Bench) -> list[tuple[Matrix, int, int, float]]:
    """The weights whose loss is predicted to cost most: (matrix, row, channel, predicted KLD)."""
    found: list[tuple[Matrix, int, int, float]] = []
    for matrix in bench.linear:
        cost = matrix.row_weights[:, None] * matrix.original.square() * matrix.hessian.diagonal() / 2
        values, places = (cost * bench.scale(matrix)).flatten().topk(REMOVED)
        k = matrix.original.shape[1]
        found += [(matrix, p // k, p % k, v) for v, p in zip(values.tolist(), places.tolist(), strict=True)]
    return sorted(found, key=lambda item: -item[3])[:REMOVED]
