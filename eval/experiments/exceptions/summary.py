"""Every mechanism at one size that was set beforehand, over its reference at equal bytes: one row for each model."""

from collections.abc import Callable, Mapping
from typing import Any

from . import absorbing, codebooks, rotation, rows, slots, sweep, trained, vocabulary
from .bench import BASES
from .codebooks import Book
from .comparison import Results
from .markdown import Lines, head, row

TEXTS = {"wiki": "wiki.test", "second": "LAMBADA"}

Key = dict[str, Any]


def summary(found: Results, text: str) -> Lines:
    """Each mechanism at one size that was set beforehand, over its reference at equal bytes."""
    yield from head("mechanism", "model", *(f"{rate} bit{'s' * (rate > 1)}" for rate in BASES))
    for name, (experiment, find, against) in SUMMARY.items():
        for model in found.models:
            cells = [
                found.ratio(found.find(experiment, model, **key), against(rate), text=text)
                if (key := find(rate)) is not None
                else ""
                for rate in BASES
            ]
            if any(cells):
                yield row(name, model, *cells)


def _swept(exception: str) -> tuple[str, Callable[[int], Key], Callable[[int], Key]]:
    """1% of the file beside the planned base, over the best plan of the same bytes."""
    about: Key = {"exception": exception, "base": "planned", "fed": True, "share": 0.01, "bits": 8}
    return sweep.EXPERIMENT, lambda rate: {**about, "rate": rate}, lambda _: {"plan": "planned", "fed": True}


def _books(of: Mapping[int, Book]) -> tuple[str, Callable[[int], Key | None], Callable[[int], Key]]:
    """Over uniform TCQ without feedback."""
    return (
        codebooks.EXPERIMENT,
        lambda rate: codebooks.key_of(of[rate]) if rate in of else None,
        lambda _: {"base": "uniform", "fed": False},
    )


def _with_training(mechanism: str) -> tuple[str, Callable[[int], Key | None], Callable[[int], Key]]:
    return (
        trained.EXPERIMENT,
        lambda rate: {"mechanism": mechanism, "base": "uniform", "rate": rate} if rate <= 2 else None,
        lambda _: {"experiment": trained.EXPERIMENT, "mechanism": "none"},
    )


SUMMARY: Mapping[str, tuple[str, Callable[[int], Key | None], Callable[[int], Key]]] = {
    "protected columns": _swept("columns"),
    "protected rows": _swept("rows"),
    "protected rows, residual in tcq3": (
        rows.EXPERIMENT,
        lambda rate: {"rows": "everywhere", "residual": "tcq3", "rate": rate, "share": 0.01},
        lambda _: {"plan": "planned", "fed": True},
    ),
    "sparse residual": _swept("weights"),
    "low-rank residual": _swept("low rank"),
    "rows of the vocabulary": (
        vocabulary.EXPERIMENT,
        lambda rate: {"type": f"tcq{rate}", "by": "gain", "share": 0.03},
        lambda _: {"experiment": vocabulary.EXPERIMENT},
    ),
    "absorbing columns": (
        absorbing.EXPERIMENT,
        lambda rate: {"base": "uniform", "rate": rate, **absorbing.DEFAULTS},
        lambda rate: {"plan": "uniform", "rate": rate, "fed": True},
    ),
    "absorbing columns, chosen by the plan": (
        absorbing.EXPERIMENT,
        lambda rate: {"plan": "with columns", "rate": rate, "larger": 1.0},
        lambda _: {"plan": "planned", "fed": True},
    ),
    "rotation by 256": (
        rotation.EXPERIMENT,
        lambda rate: {"base": "uniform", "rate": rate, "fed": True, "block": 256},
        lambda _: {"base": "uniform", "fed": True},
    ),
    "prune-to-pay slots": (
        slots.EXPERIMENT,
        lambda rate: {"base": "uniform", "rate": rate, "fed": False, "outliers": 1, "paid": True},
        lambda rate: {"plan": "uniform", "rate": rate, "fed": False},
    ),
    "codebooks of 4 weights": _books({1: Book(4, 4), 2: Book(4, 8), 3: Book(4, 12), 4: Book(4, 16, shared=True)}),
    "sums of codebooks, Mx8": _books({1: Book(8, 8), 2: Book(8, 8, 2), 3: Book(8, 8, 3), 4: Book(8, 8, 4)}),
    "codebook 1x16": _books({2: Book(8, 16, shared=True)}),
    "norm before each layer, trained": _with_training("norm"),
    "8-bit branch, trained": _with_training("branch"),
    "rotation, trained": _with_training("rotation"),
}
"""What is looked for: the experiment, the key at each rate, and the key of what it is compared with."""
