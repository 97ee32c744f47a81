"""Rows of the vocabulary at 8 bits: frequent or fragile tokens, against a higher rate for all of it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gguf_golf.formats import quant_types

from .bench import Bench, Cell, Weights
from .storage import COMPANION_BYTES, INDEX_BYTES, Stored, grid, grid_bytes
from .subject import VOCABULARY

EXPERIMENT = "vocabulary"

LINEAR = 3
"""The rate of all linear layers here."""

BASES = ("tcq1", "tcq2", "tcq3", "tcq4")
SHARES = (0.01, 0.03, 0.1)


def cells() -> Iterator[Cell]:
    """The whole vocabulary in each type, then rows of it on bases of 1 to 4 bits."""
    for name in ("tcq1", "tcq2", "tcq3", "tcq4", "tcq5", "q6_k", "q8_0"):
        yield Cell(EXPERIMENT, {"type": name}, _with, (_whole, name))
    for name in BASES:
        for by in ("gain", "frequency", "head", "lookup"):
            for share in SHARES:
                key: dict[str, Any] = {"type": name, "by": by, "share": share}
                priority = 0 if by == "gain" else 1 if by == "frequency" else 2
                yield Cell(EXPERIMENT, key, _with, (_rows_apart, name, by, share), priority)


def _with(bench: Bench, make: Callable[..., Stored], *args: Any) -> Weights:
    return bench.assembled({**bench.uniform(LINEAR, True), VOCABULARY: make(bench, *args)})


def _whole(bench: Bench, name: str) -> Stored:
    return bench.storage.at(bench.subject.matrices[VOCABULARY], name, False)


def _rows_apart(bench: Bench, name: str, by: str, share: float) -> Stored:
    """Rows that are stored at 8 bits in a tensor of their own, in place of the base's, with a 16-bit index each."""
    whole = _whole(bench, name)
    matrix = bench.subject.matrices[VOCABULARY]
    n, k = matrix.original.shape
    rows = _ranked(bench, matrix.original - whole.weights, by)[: round(share * n)]
    weights = whole.weights.clone()
    weights[rows] = grid(matrix.original[rows], 8)
    quant_type, _ = quant_types.type_for_row(name, k)
    each = grid_bytes(k, 8) + INDEX_BYTES - quant_type.row_bytes(k)
    return Stored(weights, whole.n_bytes + len(rows) * each + 2 * COMPANION_BYTES)


def _ranked(bench: Bench, error: Tensor, by: str) -> Tensor:
    matrix = bench.subject.matrices[VOCABULARY]
    assert matrix.lookups is not None
    head = matrix.row_weights * ((error @ matrix.hessian) * error).sum(1)
    lookup = (matrix.lookups * error.square()).sum(1)
    score = {"gain": head + lookup, "head": head, "lookup": lookup, "frequency": bench.subject.token_counts.float()}
    return torch.argsort(score[by], descending=True)
