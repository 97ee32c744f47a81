"""Does training take the place of exceptions, or make them pay? Norms alone are trained, by the divergence of the
16-bit model on the text that calibrated, as `gguf-golf tune --only norms` does: beside plans, and beside exceptions."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .bench import Bench, Cell, Weights, resolve, size
from .sweep import KINDS

EXPERIMENT = "tuned"

STEPS, BATCH = 60, 4
RATE = 0.002
"""Adam's, times a norm's rms."""

SHARE = 0.05


def cells() -> Iterator[Cell]:
    """At 1 and 2 bits: the planned base, plans that are larger, and the base with exceptions."""
    for rate in (1, 2):
        for larger in (1.0, 1.05, 1.1):
            key = {"plan": "planned", "rate": rate, "fed": True, "larger": larger}
            yield Cell(EXPERIMENT, key, _plan, (rate, larger), 1)
        for name in ("weights", "rows", "columns", "low rank"):
            key = {"exception": name, "base": "planned", "rate": rate, "fed": True, "share": SHARE, "bits": 8}
            yield Cell(EXPERIMENT, key, _with, (name, rate), 1)


def _plan(bench: Bench, rate: int, larger: float) -> Weights:
    start = size(bench.base("planned", rate, True))
    return _tuned(bench, bench.assembled(resolve(bench.plans("planned", rate, True).at(larger * start))))


def _with(bench: Bench, name: str, rate: int) -> Weights:
    base = bench.base("planned", rate, True)
    return _tuned(bench, KINDS[name](bench, base, SHARE * size(base), 8))


def _tuned(bench: Bench, weights: Weights) -> Weights:
    batches = [_batch(bench, step) for step in range(STEPS)]
    bench.subject.fill({})
    with torch.no_grad():
        expected = [bench.subject.log_probabilities(batch) for batch in batches]
    bench.subject.fill(weights.weights)
    norms = bench.subject.norms
    groups = [{"params": [norm], "lr": RATE * float(norm.square().mean().sqrt())} for norm in norms.values()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for norm in norms.values():
        norm.requires_grad_(True)
    for batch, target in zip(batches, expected, strict=True):
        found = bench.subject.log_probabilities(batch)
        optimizer.zero_grad()
        (target.exp() * (target - found)).sum(-1).mean().backward()
        optimizer.step()
        schedule.step()
    for norm in norms.values():
        norm.requires_grad_(False)
    weights.norms = {name: norm.detach().clone() for name, norm in norms.items()}
    return weights


def _batch(bench: Bench, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * bench.seed + step)
    chosen = torch.randperm(len(bench.training), generator=generator)[:BATCH]
    return bench.training[chosen.to(bench.training.device)]
