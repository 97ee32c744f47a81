"""Input columns that are taken out first, kept at 8 bits, and absorb the errors of all others.

With the columns P kept apart, an error e in the others costs e S e, S = H_rr - H_rp H_pp^-1 H_pr, once the columns of P
have moved by what answers it best. So the rest is encoded with error feedback under S, and then P is stored. Variants
say where a gain comes from: the bits of P, the absorption, or which columns they are. `planned` offers the columns to
the plan as further candidates, layer by layer.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gguf_golf.formats import quant_types

from .bench import BASES, Bench, Cell, Weights, resolve, size
from .plans import Path
from .storage import COMPANION_BYTES, EPSILON, INDEX_BYTES, Stored, grid, grid_bytes, plain
from .subject import Matrix

EXPERIMENT = "absorbing columns"

DEFAULTS: dict[str, Any] = {"share": 0.0025, "by": "energy", "bits": 8, "absorb": True, "feedback": True}

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"by": "explained"},
    {"absorb": False},
    {"share": 0.01},
    {"bits": 4},
    {"by": "random"},
    {"share": 0.01, "by": "explained"},
    {"feedback": False},
    {"share": 0.03, "by": "explained"},
)

OFFERS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "with columns": ({},),
    "with columns of any kind": ({}, {"bits": 4}, {"by": "explained"}, {"share": 0.01, "by": "explained"}),
}
"""What plans may choose from, at each rate, beside plain types."""


def cells() -> Iterator[Cell]:
    """The default at all rates, the plans that may use it, and at 2 bits the variants; then these at other rates."""
    for rate in (2, 3, 1, 4):
        for i, variant in enumerate(VARIANTS):
            how = {**DEFAULTS, **variant}
            priority = 0 if i == 0 else 1 if rate == 2 else 2
            yield Cell(EXPERIMENT, {"base": "uniform", "rate": rate, **how}, _everywhere, (rate, how), priority)
    found: dict[str, Path] = {}
    for offer in OFFERS:
        for rate in BASES:
            for larger in (1.0, 1.01, 1.05):
                key = {"plan": offer, "rate": rate, "fed": True, "larger": larger}
                yield Cell(EXPERIMENT, key, _planned, (found, offer, rate, larger), 0 if offer == "with columns" else 2)


def _everywhere(bench: Bench, rate: int, how: Mapping[str, Any]) -> Weights:
    return bench.assembled({**bench.uniform(rate, True), **_stored(bench, rate, how)})


def _planned(bench: Bench, found: dict[str, Path], offer: str, rate: int, larger: float) -> Weights:
    if offer not in found:
        candidates = bench.candidates(fed=True)
        for each, variant in itertools.product(BASES, OFFERS[offer]):
            stored = _stored(bench, each, {**DEFAULTS, **variant})
            for tensor, matrices in bench.tensors().items():
                if matrices[0].name in stored:
                    candidates[tensor].append(bench.candidate_of(tensor, {m.name: stored[m.name] for m in matrices}))
        found[offer] = Path(candidates)
    plan = resolve(found[offer].at(larger * size(bench.base("planned", rate, True))))
    kept = {id(s) for s in bench.storage.kept()}
    return bench.assembled(plan, used=sorted(name for name, s in plan.items() if id(s) not in kept))


def _stored(bench: Bench, rate: int, how: Mapping[str, Any]) -> dict[str, Stored]:
    return bench.storage.each(lambda m: _with_columns(bench, m, rate, how), bench.linear)


def _with_columns(bench: Bench, matrix: Matrix, rate: int, how: Mapping[str, Any]) -> Stored:
    n, k = matrix.original.shape
    quant_type, _ = quant_types.type_for_row(f"tcq{rate}", k)
    kept = _columns(matrix.hessian, max(1, round(how["share"] * k)), how["by"], bench.seed)
    others = torch.ones(k, dtype=torch.bool, device=kept.device)
    others[kept] = False
    hessian = matrix.hessian.double()
    answers = _answers(hessian, kept) if how["absorb"] else hessian.new_zeros(len(kept), k)
    remaining = (hessian - hessian[:, kept] @ answers) * others * others[:, None]
    remaining += torch.diag(~others * remaining.diagonal().sum() / others.sum() * EPSILON)
    rest = matrix.original * others
    what = (EXPERIMENT, how["share"], how["by"], how["absorb"])
    fed = how["feedback"]
    guidance = bench.storage.fed(matrix, quant_type, what, lambda: remaining) if fed else plain(remaining)
    coded = bench.storage.encode(rest, quant_type, guidance)
    error = (rest - coded.weights) * others
    moved = matrix.original[:, kept] + (error.double() @ answers.T).float()
    weights = coded.weights * others
    weights[:, kept] = grid(moved, how["bits"], 0)
    companion = len(kept) * (grid_bytes(n, how["bits"]) + INDEX_BYTES)
    headers = 2 * COMPANION_BYTES // len(bench.tensors()[matrix.tensor])
    return Stored(weights, coded.n_bytes + companion + headers)


def _answers(hessian: Tensor, kept: Tensor) -> Tensor:
    """H_pp^-1 H_p: f64 [columns kept, k]."""
    inner = hessian[kept][:, kept]
    damped = inner + torch.eye(len(kept), device=inner.device) * inner.diagonal().mean().clamp(min=1e-12) * 1e-6
    return torch.linalg.solve(damped, hessian[kept])


def _columns(hessian: Tensor, n: int, by: str, seed: int) -> Tensor:
    """Which columns: of the largest inputs, those that explain the others best, or any."""
    if by == "energy":
        return hessian.diagonal().topk(n).indices.sort().values
    if by == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(hessian), generator=generator)[:n].sort().values.to(hessian.device)
    remaining, chosen = hessian.double().clone(), []
    for _ in range(n):  # a pivoted Cholesky decomposition by the trace that a column takes away
        diagonal = remaining.diagonal()
        usable = diagonal > hessian.diagonal().mean() * 1e-6
        explained = torch.where(usable, remaining.square().sum(0) / diagonal.clamp(min=1e-30), 0.0)
        j = int(explained.argmax())
        chosen.append(j)
        remaining = remaining - torch.outer(remaining[:, j], remaining[j]) / diagonal[j].clamp(min=1e-30)
    return torch.tensor(sorted(chosen), device=hessian.device)
