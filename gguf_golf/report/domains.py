"""Damage by text: where a file is worse than its own average."""

from dataclasses import dataclass

from gguf_golf.report import words
from gguf_golf.report.axes import Z95
from gguf_golf.report.results import Model, Results


@dataclass(frozen=True)
class Cell:
    """KLD on one text; `heat` from 0 (no worse than the average) to 3 (more than twice as bad)."""

    text: str
    ratio: str
    heat: int


@dataclass(frozen=True)
class Row:
    """One file."""

    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Domains:
    """All files on all texts."""

    names: list[str]
    rows: list[Row]


def domains(results: Results) -> Domains | None:
    """KLD by text, the largest file first; None unless there are at least two texts."""
    shown = [model for model in results.quants if any("kld_mean" in text for text in model.texts.values())]
    names = list(dict.fromkeys(name for model in shown for name in model.texts))
    if len(names) < 2:
        return None
    shown.sort(key=lambda model: -model.bytes)
    return Domains(names, [Row(model.label, [_cell(model, name) for name in names]) for model in shown])


def _cell(model: Model, name: str) -> Cell:
    text = model.texts.get(name, {})
    kld, se, average = text.get("kld_mean"), text.get("kld_se"), model.measures.get("kld_mean")
    shown = words.measured(kld, None if se is None else Z95 * se)
    if kld is None or not average or average < 0:
        return Cell(shown, "", 0)
    ratio = kld / average
    heat = sum(ratio > limit for limit in (1.1, 1.4, 2))
    return Cell(shown, f"{ratio:.2f}x", heat)
