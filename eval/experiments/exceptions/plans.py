"""Plans: which tensor is stored how within a number of bytes, by measured damage.

Every mechanism has to beat this: the same bytes, spent on whole tensors at a higher rate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """One way to store a tensor: its bytes, the KLD in nats expected of it alone, and what it is."""

    n_bytes: int
    damage: float
    choice: Any


class Curve:
    """KLD of one tensor over the KLD that Fisher's form predicts, through measured points: linear below the first,
    log-linear between the two, with the last slope beyond."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self._points = sorted((max(x, 1e-12), max(y, 1e-9)) for x, y in points)

    def __call__(self, predicted: float) -> float:
        """KLD in nats."""
        (x, y), *rest = self._points
        if predicted <= x or not rest or rest[0][0] <= x:
            return predicted * y / x
        x2, y2 = rest[0]
        slope = min(max(math.log(y2 / y) / math.log(x2 / x), 0.5), 2.0)
        return float(y * (predicted / x) ** slope)


Step = tuple[float, int, str, Candidate]


class Path:
    """The best plans of all sizes, from the start (or from the smallest candidates) on: steps along each tensor's lower
    convex hull of damage over bytes, most damage saved per byte first."""

    def __init__(
        self, tensors: Mapping[str, Sequence[Candidate]], start: Mapping[str, Candidate] | None = None
    ) -> None:
        self._first: dict[str, Candidate] = {}
        steps: list[Step] = []
        for name, candidates in tensors.items():
            first = start[name] if start else min(candidates, key=lambda c: (c.n_bytes, c.damage))
            hull = _hull(first, candidates)
            self._first[name] = hull[0]
            for before, after in pairwise(hull):
                saved, cost = before.damage - after.damage, after.n_bytes - before.n_bytes
                steps.append((-saved / max(cost, 1), cost, name, after))
        self._steps = sorted(steps, key=lambda step: (step[0], step[1], step[2]))

    def at(self, budget: float) -> dict[str, Candidate]:
        """The plan for `budget` bytes: steps in order, without those that do not fit any more."""
        plan, total = dict(self._first), sum(c.n_bytes for c in self._first.values())
        full: set[str] = set()
        for _, cost, name, candidate in self._steps:
            if name not in full and total + cost <= budget:
                total += cost
                plan[name] = candidate
            else:
                full.add(name)
        return plan


def _hull(first: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    hull = [first]
    for candidate in sorted(candidates, key=lambda c: (c.n_bytes, c.damage)):
        if candidate.n_bytes <= hull[0].n_bytes and candidate.damage < hull[0].damage:
            hull = [candidate]  # better and no larger than the start
            continue
        if candidate.n_bytes <= hull[-1].n_bytes or candidate.damage >= hull[-1].damage:
            continue
        while len(hull) > 1 and _slope(hull[-2], candidate) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(candidate)
    return hull


def _slope(a: Candidate, b: Candidate) -> float:
    return (b.damage - a.damage) / (b.n_bytes - a.n_bytes)
