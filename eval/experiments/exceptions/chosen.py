"""Exceptions beside a base: which rows, columns, weights or directions of what is missing are worth their bytes most.

All choices are made over the whole model at once, by predicted gain per byte; gains are Fisher's, calibrated by what
each tensor alone was measured to cost. What is stored is a residual: the base stays as it is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .bench import Bench, Weights, size
from .storage import INDEX_BYTES, Stored, grid, grid_bytes, sparse_index_bytes

MOST_RANK = 24
"""Of a low-rank residual."""


def with_lines(bench: Bench, base: Mapping[str, Stored], budget: float, *, bits: int, dim: int) -> Weights:
    """The residual of whole rows (dim 0) or columns (dim 1), `budget` bytes of them, on a grid of `bits` bits."""
    missing = errors(bench, base)
    gains = {name: _line_gains(bench, name, error, dim) for name, error in missing.items()}
    cost = {name: grid_bytes(error.shape[1 - dim], bits) + INDEX_BYTES for name, error in missing.items()}
    picked = best(gains, cost, budget)
    weights, spent = {name: s.weights for name, s in base.items()}, {}
    for name, items in picked.items():
        residual = missing[name].index_select(dim, items)
        weights[name] = weights[name].index_add(dim, items, grid(residual, bits, 1 - dim))
        spent[name] = len(items) * cost[name]
    return finished(bench, base, weights, spent)


def with_weights(bench: Bench, base: Mapping[str, Stored], budget: float, *, bits: int) -> Weights:
    """The residual of single weights, on a grid of `bits` bits with one scale for each matrix."""
    missing = errors(bench, base)
    gains = {name: _gains(bench, name, error).flatten() for name, error in missing.items()}
    expected = 10.0 / 8 + bits / 8  # bytes of one, its index included; what is stored is counted exactly
    picked = best(gains, dict.fromkeys(missing, expected), budget)
    weights, spent = {name: s.weights for name, s in base.items()}, {}
    for name, items in picked.items():
        values = missing[name].flatten()[items]
        scale = (values.abs().max() / (2 ** (bits - 1) - 1)).clamp(min=1e-12)
        restored = weights[name].flatten().clone()
        restored[items] += torch.round(values / scale) * scale
        weights[name] = restored.view_as(weights[name])
        spent[name] = sparse_index_bytes(restored.numel(), len(items)) + len(items) * bits // 8 + 2
    return finished(bench, base, weights, spent)


def with_low_rank(bench: Bench, base: Mapping[str, Stored], budget: float, *, bits: int) -> Weights:
    """The residual's best directions under Fisher's form (an SVD of G^1/2 E H^1/2), both factors on a grid."""
    factors: dict[str, list[Tensor]] = {}
    gains: dict[str, Tensor] = {}
    cost: dict[str, float] = {}
    for name, error in errors(bench, base).items():
        matrix = bench.subject.matrices[name]
        if id(base[name]) not in bench.directions:
            bench.directions[id(base[name])] = _directions(matrix.row_weights, matrix.hessian, error, bench.seed)
        *factors[name], strengths = bench.directions[id(base[name])]
        gains[name] = strengths.square() / 2 * bench.scale(matrix)
        cost[name] = grid_bytes(sum(error.shape), bits)
    picked = best(gains, cost, budget)
    weights = {name: s.weights for name, s in base.items()}
    for name, items in picked.items():
        left, right = factors[name]
        weights[name] = weights[name] + grid(left[:, items], bits, 0) @ grid(right[items], bits)
    spent = {name: len(items) * cost[name] for name, items in picked.items()}
    return finished(bench, base, weights, spent)


def _directions(row_weights: Tensor, hessian: Tensor, error: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(A [n, r], B [r, k], strengths [r]) with A B the weighted approximation of the error."""
    rows = row_weights.clamp(min=float(row_weights.mean()) * 1e-3 + 1e-20).sqrt()
    damped = hessian + torch.eye(len(hessian), device=hessian.device) * (hessian.diagonal().mean() * 1e-2 + 1e-20)
    root = torch.linalg.cholesky(damped)
    torch.manual_seed(seed)
    rank = min(MOST_RANK, *error.shape)
    u, s, v = torch.svd_lowrank(rows[:, None] * error @ root, q=rank, niter=2)
    left = u * s / rows[:, None]
    right = torch.linalg.solve_triangular(root, v.T, upper=False, left=False)
    balance = (right.norm(dim=1) / left.norm(dim=0).clamp(min=1e-30)).sqrt()  # so that f16 scales hold both
    return left * balance, right / balance.clamp(min=1e-30)[:, None], s


def errors(bench: Bench, base: Mapping[str, Stored]) -> dict[str, Tensor]:
    """What is missing in each matrix, f32 [n, k]."""
    return {name: bench.subject.matrices[name].original - s.weights for name, s in base.items()}


def _gains(bench: Bench, name: str, error: Tensor) -> Tensor:
    matrix = bench.subject.matrices[name]
    return matrix.gains(error) * bench.scale(matrix)


def _line_gains(bench: Bench, name: str, error: Tensor, dim: int) -> Tensor:
    if dim == 1:
        return _gains(bench, name, error).sum(0)
    matrix = bench.subject.matrices[name]
    return matrix.row_damages(error) * bench.scale(matrix)


def best(gains: Mapping[str, Tensor], cost: Mapping[str, float], budget: float) -> dict[str, Tensor]:
    """Indices by matrix of the items with the highest gain per byte, as many as `budget` bytes hold."""
    names = list(gains)
    per_byte = torch.cat([gains[name] / cost[name] for name in names])
    most = min(len(per_byte), int(budget / min(cost.values())) + 1)
    values, order = per_byte.topk(most)
    bounds = torch.cumsum(torch.tensor([len(gains[name]) for name in names]), 0).to(order.device)
    owner = torch.bucketize(order, bounds, right=True)
    costs = torch.tensor([cost[name] for name in names], dtype=torch.float64, device=order.device)[owner]
    taken = (costs.cumsum(0) <= budget) & (values > 0)
    order, owner = order[taken], owner[taken]
    starts = torch.cat([bounds.new_zeros(1), bounds])
    return {name: order[owner == i] - starts[i] for i, name in enumerate(names) if bool((owner == i).any())}


def finished(
    bench: Bench, base: Mapping[str, Stored], weights: dict[str, Tensor], spent: Mapping[str, float]
) -> Weights:
    """`spent`: bytes of companions by matrix, without their headers."""
    where: dict[str, int] = {}
    for name, n_bytes in spent.items():
        kind = bench.subject.matrices[name].kind
        where[kind] = where.get(kind, 0) + int(n_bytes)
    companions = int(sum(spent.values())) + bench.companion_bytes(spent, 2)
    return Weights(weights, bench.subject.fixed_bytes + size(base) + companions, {"spent": where})
