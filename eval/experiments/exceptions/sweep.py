"""A strict sweep: 0.25 to 10% of the file as exceptions of each kind, on bases of 1 to 4 bits.

Structured (rows, columns) against unstructured (single weights) against low rank (which takes an SVD of every matrix,
and so has fewer cells), each chosen over the whole model.
"""

from collections.abc import Iterator

from .bench import BASES, Bench, Cell, Weights, size
from .chosen import with_lines, with_low_rank, with_weights

EXPERIMENT = "sweep"

SHARES = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)

KINDS = {
    "columns": lambda bench, base, budget, bits: with_lines(bench, base, budget, bits=bits, dim=1),
    "rows": lambda bench, base, budget, bits: with_lines(bench, base, budget, bits=bits, dim=0),
    "weights": lambda bench, base, budget, bits: with_weights(bench, base, budget, bits=bits),
    "low rank": lambda bench, base, budget, bits: with_low_rank(bench, base, budget, bits=bits),
}


def cells() -> Iterator[Cell]:
    """Every kind on the planned base; on the uniform one, and without feedback, at fewer sizes."""
    for kind, fed, shares in (
        ("planned", True, SHARES),
        ("uniform", True, (0.01, 0.05)),
        ("planned", False, (0.0025, 0.01, 0.05)),
    ):
        for rate in BASES:
            for name in KINDS:
                for share in shares:
                    for bits in (8, 4) if share == 0.01 else (8,):
                        first = share in (0.01, 0.05) and fed and bits == 8
                        if name == "low rank" and not first:
                            continue
                        about = {"base": kind, "rate": rate, "fed": fed, "share": share, "bits": bits}
                        priority = 0 if first and kind == "planned" else 1 if fed else 2
                        args = (name, kind, rate, fed, share, bits)
                        yield Cell(EXPERIMENT, {"exception": name, **about}, _with, args, priority)


def _with(bench: Bench, name: str, kind: str, rate: int, fed: bool, share: float, bits: int) -> Weights:
    base = bench.base(kind, rate, fed)
    return KINDS[name](bench, base, share * size(base), bits)
