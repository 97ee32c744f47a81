"""The geometry of the plots, in the pixels of their viewBox; the templates only draw what is computed here."""

from dataclasses import dataclass

from gguf_golf.report import words
from gguf_golf.report.axes import Axis
from gguf_golf.report.results import Model, Results
from gguf_golf.report.scale import Scale, fit
from gguf_golf.report.verdict import dominated, frontier

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 36
FONT = 11
LABEL = 24  # characters of a file's name, at most
ROW = 34  # pixels from one row of the distribution plot to the next
OVERLAP = 1.3  # how far its tallest hill reaches, in rows


@dataclass(frozen=True)
class Tick:
    """A tick at a pixel."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """One file. `top`..`bottom` is its 95% interval; the label is left out where there is no room.

    `runs_in` is "ours", "any" llama.cpp, or "another" program (also where the file's tensors are not known).
    """

    x: float
    y: float
    top: float | None
    bottom: float | None
    dominated: bool
    runs_in: str
    tip: str
    label: str
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True)
class Level:
    """A reference line across the plot: the base, or chance; its name stands above or below it."""

    y: float
    text_y: float
    text: str


@dataclass(frozen=True)
class Pareto:
    """A plot of one axis against bytes. `frontier` are the SVG points of the best files of their size."""

    axis: Axis
    points: list[Point]
    frontier: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    levels: list[Level]
    x_title: str
    scales: str


def pareto(results: Results, axis: Axis) -> Pareto:
    """The files of one axis; losses that span much on a logarithmic scale."""
    shown = [(model, value) for model in results.quants if (value := axis.of(model))]
    values = [value.value for _, value in shown if value.value > 0]
    log = axis.lower_is_better and len(values) > 0 and max(values) > 3 * min(values)
    levels = [(axis.base, "original"), (axis.chance, "guessing")]
    floor = axis.of(results.noise_floor) if results.noise_floor else None
    if (
        log and axis.base is None and floor and floor.value > min(values) / 30
    ):  # farther below it would flatten the plot
        levels.append((floor.value, "noise floor"))
    ends = [end for _, value in shown for end in (value.value, value.low, value.high) if end is not None]
    if log:
        ends = [max(end, min(values) / 3) for end in ends]
    y = fit([*ends, *(level for level, _ in levels if level is not None)], HEIGHT - BOTTOM, TOP, log=log)
    sizes = [model.bytes for model, _ in shown]
    x = fit(sizes, LEFT, WIDTH - RIGHT, log=max(sizes) > 8 * min(sizes))
    worse = dominated(results, axis)
    points = [_point(results, model, axis, x, y, model in worse) for model, _ in shown]
    line = [] if axis.key.startswith("task:") else frontier(results, axis)  # tasks are too noisy to draw one
    unit, factor = ("GB", 1e9) if max(sizes) >= 1e9 else ("MB", 1e6)
    return Pareto(
        axis=axis,
        points=_with_labels(points, [y(level) for level, _ in levels if level is not None]),
        frontier=" ".join(f"{x(m.bytes)},{y(value.value)}" for m in line if (value := axis.of(m))),
        x_ticks=[Tick(x(tick), f"{tick / factor:g}") for tick in x.ticks()],
        y_ticks=[Tick(y(tick), _tick(tick, axis)) for tick in y.ticks()],
        levels=_levels([(y(level), text) for level, text in levels if level is not None]),
        x_title=f"file size, {unit}",
        scales=_scales(log, max(sizes) > 8 * min(sizes)),
    )


def _scales(vertical: bool, horizontal: bool) -> str:
    """Which axes are logarithmic, in words."""
    if vertical and horizontal:
        return "both axes logarithmic"
    return "logarithmic" if vertical else "sizes logarithmic" if horizontal else ""


def _levels(known: list[tuple[float, str]]) -> list[Level]:
    lowest = max((at for at, _ in known), default=0.0)
    close = len(known) > 1 and abs(known[0][0] - known[1][0]) < FONT + 3
    return [Level(at, at + FONT + 1 if close and at == lowest else at - 4, text) for at, text in known]


def _tick(value: float, axis: Axis) -> str:
    if axis.is_share:
        return f"{100 * value:.4g}%"
    return f"{value:.4g}"


def _point(results: Results, model: Model, axis: Axis, x: Scale, y: Scale, is_dominated: bool) -> Point:
    value = axis.of(model)
    assert value is not None
    tip = [
        model.file,
        f"{words.size(model.bytes)}" + (f", {words.number(model.bpw)} bits per weight" if model.bpw else ""),
        f"{axis.title}: {axis.show(value)}",
    ]
    measures = model.measures
    if axis.key != "kld_mean" and "kld_mean" in measures:
        tip.append(f"KLD: {words.number(measures['kld_mean'])}")
    if axis.key != "top1" and "top1" in measures:
        tip.append(f"Same next token: {words.percent(measures['top1'])}")
    if is_dominated:
        tip.append("dominated: another file is no larger and better")
    return Point(
        x=x(model.bytes),
        y=y(value.value),
        top=None if value.high is None else y(value.high),
        bottom=None if value.low is None else y(value.low),
        dominated=is_dominated,
        runs_in={False: "ours", True: "any", None: "another"}[model.is_stock],
        tip="\n".join(tip),
        label=_short(model.label),
    )


def _short(label: str) -> str:
    return label if len(label) <= LABEL else label[: LABEL - 1] + "…"


def _with_labels(points: list[Point], levels: list[float]) -> list[Point]:
    """Labels where nothing else is: each takes the first free place around its point, undominated files first."""
    taken = [(p.x - 5, p.y - 5, p.x + 5, p.y + 5) for p in points]
    taken += [(LEFT, level - 16, LEFT + 60, level) for level in levels]  # the names of the reference lines
    placed = {}
    for point in sorted(points, key=lambda p: p.dominated):
        width, half = 0.58 * FONT * len(point.label), FONT / 2
        for dx, dy, anchor in _PLACES:
            x0 = point.x + dx - {"start": 0, "middle": width / 2, "end": width}[anchor]
            box = (x0, point.y + dy - half, x0 + width, point.y + dy + half)
            inside = box[0] > LEFT and box[2] < WIDTH and box[1] > 0 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                placed[point] = (point.x + dx, point.y + dy, anchor)
                break
    return [
        Point(**{**vars(p), "label_x": at[0], "label_y": at[1], "anchor": at[2]})
        if (at := placed.get(p))
        else Point(**{**vars(p), "label": ""})
        for p in points
    ]


_PLACES = (
    (8, -7, "start"),
    (-8, -7, "end"),
    (8, 8, "start"),
    (-8, 8, "end"),
    (0, -13, "middle"),
    (0, 14, "middle"),
    (9, 0, "start"),
    (-9, 0, "end"),
)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass(frozen=True)
class Hill:
    """One file's KLD distribution: an SVG path over its baseline `y`, and the pixels of median, mean and 99%."""

    label: str
    y: float
    path: str
    median: float | None
    mean: float | None
    p99: float | None
    tip: str


@dataclass(frozen=True)
class Distribution:
    """Hills one above the other, smallest file first, on one logarithmic scale of KLD per token."""

    hills: list[Hill]
    ticks: list[Tick]
    height: float
    left: float


def distribution(results: Results) -> Distribution | None:
    """How KLD is spread over tokens; None if no file carries a histogram that fits the edges."""
    edges = results.kld_edges
    shown = [m for m in results.quants if m.histogram and len(m.histogram) == len(edges) - 1 and sum(m.histogram)]
    if not shown:
        return None
    shown.sort(key=lambda model: model.bytes)
    used = [i for model in shown for i, count in enumerate(model.histogram) if count > 0.0005 * sum(model.histogram)]
    low, high = edges[min(used)], edges[max(used) + 1]
    left = 14 + 0.6 * FONT * max(len(_short(model.label)) for model in shown)
    x = Scale(low, high, left, WIDTH - RIGHT, log=True)
    tallest = max(max(model.histogram) / sum(model.histogram) for model in shown)
    hills = []
    for row, model in enumerate(shown):
        base = round(OVERLAP * ROW + row * ROW, 1)
        total = sum(model.histogram)
        tops = [
            (x((edges[i] * edges[i + 1]) ** 0.5), round(base - OVERLAP * ROW * count / total / tallest, 1))
            for i, count in enumerate(model.histogram)
            if low <= edges[i] < high
        ]
        line = "L".join(f"{px},{py}" for px, py in tops)
        known = {name: model.measures.get(name) for name in ("kld_p50", "kld_mean", "kld_p99")}
        marks = {name: x(value) if value and value > 0 else None for name, value in known.items()}
        tip = "\n".join(
            [model.file, *(f"{title}: {words.number(model.measures.get(name))}" for name, title in _HILL_TIP)]
        )
        path = f"M{x(low)},{base}L{line}L{x(high)},{base}Z"
        hills.append(Hill(_short(model.label), base, path, marks["kld_p50"], marks["kld_mean"], marks["kld_p99"], tip))
    return Distribution(hills, [Tick(x(t), f"{t:g}".replace("e-0", "e-")) for t in x.ticks()], hills[-1].y, left)


_HILL_TIP = (
    ("kld_p50", "median"),
    ("kld_mean", "mean"),
    ("kld_p90", "90%"),
    ("kld_p99", "99%"),
    ("kld_p999", "99.9%"),
    ("kld_max", "largest"),
)
