"""The byte-return curve: what a model's bytes buy along the frontier of best plans, and where they go."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from gguf_golf.models.roles import group as role
from gguf_golf.plan.candidates import Group

SATURATED = 5e-4
"""Where one percent more bytes saves less than this (nats), bytes buy nothing that a user could notice."""

ROLES = ("vocabulary", "attention", "MLP", "other")


@dataclass(frozen=True)
class Point:
    """One plan on the frontier: bytes of quantizable tensors, predicted damage, and what 10^6 more bytes save of it.

    `bpw` has the bits per weight of each role, and of all under "all".
    """

    bytes: int
    damage: float
    per_mb: float
    bpw: dict[str, float]
    bytes_of: dict[str, int]


def frontier(groups: Sequence[Group], n_weights: dict[str, int]) -> list[Point]:
    """The convex hull of all plans, smallest first: each point is optimal for its bytes.

    `n_weights` has the size of each tensor. Every point minimises damage + price * bytes for one price of a byte.
    """
    found: list[Point] = []
    for price in np.logspace(-2, -16, 281):
        chosen = [int((group.item.damage + price * group.item.bytes).argmin()) for group in groups]
        point = describe(groups, chosen, n_weights, per_mb=0.0)
        if not found or point.bytes > found[-1].bytes:
            found.append(point)
    slopes = [1e6 * (one.damage - two.damage) / (two.bytes - one.bytes) for one, two in pairwise(found)]
    return [replace(point, per_mb=slope) for point, slope in zip(found, [*slopes, 0.0], strict=True)]


def describe(groups: Sequence[Group], chosen: Sequence[int], n_weights: dict[str, int], per_mb: float) -> Point:
    """Where the bytes of these choices lie."""
    size, weights, damage = dict.fromkeys(ROLES, 0), dict.fromkeys(ROLES, 0), 0.0
    for group, index in zip(groups, chosen, strict=True):
        damage += float(group.damage[index])
        together = sum(n_weights[name] for name in group.names)
        for name in group.names:
            size[role(name)] += int(group.item.bytes[index] * n_weights[name] / together)
            weights[role(name)] += n_weights[name]
    bpw = {name: 8 * size[name] / weights[name] for name in ROLES if weights[name]}
    bpw["all"] = 8 * sum(size.values()) / sum(weights.values())
    total = sum(int(group.item.bytes[index]) for group, index in zip(groups, chosen, strict=True))
    return Point(total, damage, per_mb, bpw, size)


def render(points: Sequence[Point], here: Point, overhead: int, unit: str) -> str:
    """The curve as a table of about sixteen lines around the chosen plan, and what it says, in words.

    `overhead` is added to all sizes (header and F32 tensors); `unit` names the damage ("KLD").
    """
    shown = _spread_out([point for point in points if point.bpw["all"] < 9], 16)
    shown = sorted([*shown, here], key=lambda point: point.bytes)
    roles = [name for name in ROLES if name in here.bpw]
    heading = ["MB", "bpw", unit, f"{unit} saved per MB", *(f"{name} bpw" for name in roles)]
    rows = [heading]
    for point in shown:
        numbers = [f"{(point.bytes + overhead) / 1e6:.2f}", f"{point.bpw['all']:.2f}", f"{point.damage:.3g}"]
        rows.append([*numbers, f"{point.per_mb:.2g}", *(f"{point.bpw[name]:.2f}" for name in roles)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines = [line + ("  <- this plan" if point is here else "") for line, point in zip(lines[1:], shown, strict=True)]
    header = "  ".join(cell.rjust(width) for cell, width in zip(heading, widths, strict=True))
    return "\n".join([header, "-" * len(header), *lines, "", *_words(points, here, overhead, unit)])


def _words(points: Sequence[Point], here: Point, overhead: int, unit: str) -> list[str]:
    total = sum(here.bytes_of.values())
    shares = ", ".join(f"{name} {100 * size / total:.0f}%" for name, size in here.bytes_of.items() if size)
    words = [f"bytes of this plan: {shares}", f"the next MB would save {unit} {here.per_mb:.2g}"]
    flat = [p for p in points if p.per_mb * (p.bytes + overhead) / 1e8 < SATURATED]
    if flat and unit == "KLD":
        words.append(
            f"from {(flat[0].bytes + overhead) / 1e6:.1f} MB ({flat[0].bpw['all']:.2f} bpw) on, one percent more bytes "
            f"saves less than {unit} {SATURATED:g}: the curve has saturated"
        )
    return words


def _spread_out(points: Sequence[Point], count: int) -> list[Point]:
    """About `count` of the points, evenly spaced in bytes."""
    if len(points) <= count:
        return list(points)
    sizes = np.array([point.bytes for point in points], np.float64)
    picked = {int(np.abs(sizes - size).argmin()) for size in np.linspace(sizes[0], sizes[-1], count)}
    return [points[index] for index in sorted(picked)]
