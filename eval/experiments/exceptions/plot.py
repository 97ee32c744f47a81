"""The plot of the sweep as SVG: KLD that is left, over the bytes that exceptions take, a panel for each rate."""

import math
import statistics
from collections.abc import Sequence

from . import reference, sweep
from .bench import BASES
from .comparison import Results

WIDTH, HEIGHT, LEFT, TOP, GAP = 200, 220, 46, 34, 30
COLOURS = {"plan": "#222", "columns": "#1f77b4", "rows": "#2ca02c", "weights": "#d62728", "low rank": "#9467bd"}
MOST = 0.105
"""The right end, as a share of the base's bytes."""

PLANNED = {"plan": "planned", "fed": True}

Points = Sequence[tuple[float, float, float]]
"""Added bytes and KLD, both in those of the base, and the standard error of the latter."""


def plot(found: Results, model: str) -> str:
    """One model on its planned bases, with feedback; means over seeds, with their standard errors."""
    panels = {rate: _lines(found, model, rate) for rate in BASES}
    values = [y for lines in panels.values() for points in lines.values() for _, y, _ in points]
    low, high = min(values, default=0.5), max(values, default=1.0)
    width = LEFT + len(BASES) * (WIDTH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + 40}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{TOP + HEIGHT + 40}" fill="#fff"/>',
    ]
    parts += [
        f'<text x="{LEFT + 110 * i}" y="14" fill="{colour}">{"whole tensors (plan)" if name == "plan" else name}</text>'
        for i, (name, colour) in enumerate(COLOURS.items())
    ]
    for i, (rate, lines) in enumerate(panels.items()):
        x0 = LEFT + i * (WIDTH + GAP)
        parts.append(f'<rect x="{x0}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#bbb"/>')
        parts.append(f'<text x="{x0 + 6}" y="{TOP + HEIGHT - 8}">{model}, {rate}-bit base</text>')
        for share in (0, 0.05, 0.1):
            x = x0 + WIDTH * share / MOST
            parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 14}" text-anchor="middle">+{100 * share:g}%</text>')
        for name, points in lines.items():
            path = " ".join(f"{x0 + WIDTH * x / MOST:.1f},{_height(y, low, high):.1f}" for x, y, _ in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.6"/>')
            for x, y, error in points:
                at, top, bottom = x0 + WIDTH * x / MOST, _height(y + error, low, high), _height(y - error, low, high)
                line = f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{COLOURS[name]}"/>'
                parts.append(line)
    for y in _ticks(low, high):
        at = _height(y, low, high)
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    middle = LEFT + (width - LEFT) / 2
    parts.append(f'<text x="{middle}" y="{TOP + HEIGHT + 32}" text-anchor="middle">bytes added to the file</text>')
    parts.append(f'<text x="4" y="{TOP - 6}">KLD / base</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _lines(found: Results, model: str, rate: int) -> dict[str, Points]:
    base = {c["seed"]: c for c in found.find(reference.EXPERIMENT, model, rate=rate, larger=1.0, **PLANNED)}
    asked = {"plan": (reference.EXPERIMENT, PLANNED, "larger")}
    for name in sweep.KINDS:
        asked[name] = (sweep.EXPERIMENT, {"exception": name, "base": "planned", "fed": True, "bits": 8}, "share")
    lines: dict[str, Points] = {}
    for name, (experiment, key, step) in asked.items():
        by_size: dict[float, list[tuple[float, float]]] = {}
        for cell in found.find(experiment, model, rate=rate, **key):
            if (start := base.get(cell["seed"])) and cell["bytes"] <= start["bytes"] * (1 + MOST):
                point = (cell["bytes"] / start["bytes"] - 1, found.mean([cell]) / found.mean([start]))
                by_size.setdefault(cell["key"][step], []).append(point)
        points = sorted(_mean(each) for each in by_size.values())
        lines[name] = points if name == "plan" else [(0.0, 1.0, 0.0), *points]
    return lines if base else {}


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Mean bytes and KLD over seeds, and the standard error of the latter."""
    x, y = zip(*points, strict=True)
    return statistics.mean(x), statistics.mean(y), statistics.stdev(y) / math.sqrt(len(y)) if len(y) > 1 else 0.0


def _height(y: float, low: float, high: float) -> float:
    return TOP + HEIGHT * (1 - (math.log(y) - math.log(low)) / ((math.log(high) - math.log(low)) or 1.0))


def _ticks(low: float, high: float) -> list[float]:
    return [tick for tick in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 2.5) if low <= tick <= high]
