"""What the page says of each task: scores, what is retained, and which answers flipped."""

from collections.abc import Sequence
from dataclasses import dataclass

from gguf_golf.report.axes import Axis
from gguf_golf.report.results import Model, Results, Task

_LISTED = 40  # flips named on the page; the results file holds all


@dataclass(frozen=True)
class Flip:
    """One question that the base and a file answer differently in effect; letters or short answers, None unknown."""

    id: str
    base: str | None
    model: str | None


@dataclass(frozen=True)
class Row:
    """One file on one task. `lost_path` and `gained_path` mark flipped questions, one unit wide each, row height 1."""

    model: Model
    task: Task
    lost: list[Flip]
    gained: list[Flip]
    more: int
    lost_path: str
    gained_path: str


@dataclass(frozen=True)
class Panel:
    """One task; `width` is the number of questions that flipped in any file."""

    axis: Axis
    task: Task
    base: Model | None
    rows: list[Row]
    width: int


def task_panels(results: Results, axes: Sequence[Axis]) -> list[Panel]:
    """A panel for each task axis; its flipped questions in the order of how many files lose them."""
    return [_panel(results, axis, axis.key.removeprefix("task:")) for axis in axes if axis.key.startswith("task:")]


def _panel(results: Results, axis: Axis, name: str) -> Panel:
    shown = sorted((model for model in results.quants if name in model.tasks), key=lambda model: model.bytes)
    balance: dict[str, int] = {}
    for model in shown:
        metric = model.tasks[name].metric
        for key in metric.lost:
            balance[key] = balance.get(key, 0) + 1
        for key in metric.gained:
            balance[key] = balance.get(key, 0) - 1
    place = {key: i for i, key in enumerate(sorted(balance, key=lambda key: (-balance[key], key)))}
    base = results.base if results.base and name in results.base.tasks else None
    answers = base.tasks[name].answers if base else {}
    rows = []
    for model in shown:
        task = model.tasks[name]
        more = sum(max(0, len(keys) - _LISTED) for keys in (task.metric.lost, task.metric.gained))
        rows.append(
            Row(
                model,
                task,
                lost=_flips(task.metric.lost, answers, task),
                gained=_flips(task.metric.gained, answers, task),
                more=more,
                lost_path=_marks(task.metric.lost, place),
                gained_path=_marks(task.metric.gained, place),
            )
        )
    return Panel(axis, next(model.tasks[name] for model in (base, *shown) if model), base, rows, len(place))


def _flips(keys: Sequence[str], base_answers: dict[str, str], task: Task) -> list[Flip]:
    return [Flip(key, base_answers.get(key), task.answers.get(key)) for key in sorted(keys)[:_LISTED]]


def _marks(keys: Sequence[str], place: dict[str, int]) -> str:
    return "".join(f"M{place[key]} 0h1v1h-1z" for key in sorted(set(keys), key=lambda key: place[key]))
