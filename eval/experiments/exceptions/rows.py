"""Protected rows, looked at closely: of which matrices, how they are stored, and at whole budgets.

Rows of the vocabulary are tokens, seldom or often said; those of a linear layer are its outputs. The residual is on a
grid of 8 bits, or in TCQ of 2 to 4 bits, which is what a trellis would make of it in a file.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gguf_golf.formats import quant_types

from .bench import BASES, Bench, Cell, Weights, resolve, size
from .chosen import best, errors, finished
from .storage import INDEX_BYTES, Stored, grid, grid_bytes, plain
from .subject import VOCABULARY, Matrix

EXPERIMENT = "rows"

WHERE: Mapping[str, Callable[[Matrix], bool]] = {
    "everywhere": lambda _: True,
    "vocabulary": lambda matrix: matrix.name == VOCABULARY,
    "linear layers": lambda matrix: matrix.name != VOCABULARY,
}

SHARES = (0.005, 0.01, 0.02, 0.05)
RESIDUALS = ("tcq2", "tcq4", "q8")

TOTALS = (1.165, 1.352)
"""Sizes of whole files, in those of the uniform one of 2 bits: 31 and 36 MB of golf-88m."""


def cells() -> Iterator[Cell]:
    """Where, at every rate; within whole budgets; then how residuals are stored."""
    for rate in BASES:
        for where in WHERE:
            for share in SHARES:
                about = {"rows": where, "residual": "tcq3", "rate": rate, "share": share}
                yield Cell(EXPERIMENT, about, _beside, (where, "tcq3", rate, share))
    for total in TOTALS:
        for share in SHARES:
            about = {"rows": "everywhere", "residual": "tcq3", "total": total, "share": share}
            yield Cell(EXPERIMENT, about, _within, ("everywhere", "tcq3", total, share))
    for rate in BASES:
        for residual in RESIDUALS:
            about = {"rows": "everywhere", "residual": residual, "rate": rate, "share": 0.01}
            yield Cell(EXPERIMENT, about, _beside, ("everywhere", residual, rate, 0.01), 1)


def _beside(bench: Bench, where: str, residual: str, rate: int, share: float) -> Weights:
    base = bench.base("planned", rate, True)
    return _with_rows(bench, base, share * size(base), where, residual)


def _within(bench: Bench, where: str, residual: str, total: float, share: float) -> Weights:
    budget = total * size(bench.uniform(2, True))
    base = resolve(bench.free_plans(True).at(budget / (1 + share)))
    return _with_rows(bench, base, budget - size(base), where, residual)


def _with_rows(bench: Bench, base: Mapping[str, Stored], budget: float, where: str, residual: str) -> Weights:
    chosen = {name: base[name] for name, matrix in bench.subject.matrices.items() if WHERE[where](matrix)}
    missing = errors(bench, chosen)
    gains, cost = {}, {}
    for name, error in missing.items():
        matrix = bench.subject.matrices[name]
        gains[name] = matrix.row_damages(error) * bench.scale(matrix)
        cost[name] = _row_bytes(residual, error.shape[1]) + INDEX_BYTES
    weights: dict[str, Any] = {name: s.weights for name, s in base.items()}
    spent: dict[str, float] = {}
    for name, rows in best(gains, cost, budget).items():
        matrix, error = bench.subject.matrices[name], missing[name][rows]
        if residual == "q8":
            stored = grid(error, 8)
        else:
            quant_type, _ = quant_types.type_for_row(residual, error.shape[1])
            stored = bench.storage.encode(error, quant_type, plain(matrix.hessian)).weights
        weights[name] = weights[name].index_add(0, rows, stored)
        spent[name] = len(rows) * cost[name]
    return finished(bench, base, weights, spent)


def _row_bytes(residual: str, k: int) -> int:
    if residual == "q8":
        return grid_bytes(k, 8)
    quant_type, _ = quant_types.type_for_row(residual, k)
    return quant_type.row_bytes(k)
