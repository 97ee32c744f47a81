"""From 16 to 8 to 4 bits and below on every axis: divergence, agreement of the top token, loss, on two domains."""

from collections.abc import Iterator

from .bench import Bench, Cell, Weights

EXPERIMENT = "axes"

TYPES = ("16 bit", "q8_0", "q6_k", "tcq5", "q4_k", "tcq4", "tcq3", "tcq2")


def cells() -> Iterator[Cell]:
    """All matrices in one type, TCQ with feedback."""
    for name in TYPES:
        yield Cell(EXPERIMENT, {"type": name}, _all_in, (name,), 1)


def _all_in(bench: Bench, name: str) -> Weights:
    if name == "16 bit":
        return bench.assembled({})
    return bench.assembled(bench.storage.each(lambda m: bench.storage.at(m, name, True), bench.matrices))
