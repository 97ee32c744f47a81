"""What every exception is compared with: one rate for all, and the same bytes on whole tensors at a higher rate."""

from collections.abc import Iterator
from typing import Any

from .bench import BASES, RATES, Bench, Cell, Weights, resolve, size

EXPERIMENT = "reference"

LARGER = (1.0, 1.0025, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.3)
"""Sizes, in sizes of a base, at which plans are measured."""


def cells() -> Iterator[Cell]:
    """Uniform files, then plans around each base: those that only add to the uniform one, and the best there are."""
    for fed in (True, False):
        for rate in RATES:
            key: dict[str, Any] = {"base": "uniform", "rate": rate, "fed": fed}
            yield Cell(EXPERIMENT, key, _uniform, (rate, fed))
    for fed in (True, False):
        for rate in BASES:
            for kind in ("planned", "uniform"):
                for larger in LARGER:
                    key = {"plan": kind, "rate": rate, "fed": fed, "larger": larger}
                    yield Cell(
                        EXPERIMENT, key, _planned, (kind, rate, fed, larger), 0 if fed or kind == "uniform" else 2
                    )


def _uniform(bench: Bench, rate: int, fed: bool) -> Weights:
    return bench.assembled(bench.uniform(rate, fed))


def _planned(bench: Bench, kind: str, rate: int, fed: bool, larger: float) -> Weights:
    start = size(bench.base(kind, rate, fed))
    return bench.assembled(resolve(bench.plans(kind, rate, fed).at(larger * start)))
