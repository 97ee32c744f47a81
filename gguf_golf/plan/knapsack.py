"""The multiple-choice knapsack, exactly: one candidate for each item, the least damage that fits. HiGHS solves it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from gguf_golf.errors import InputError

# HiGHS stops at an absolute gap of 1e-6, which scipy cannot set: damages are scaled until that is nothing.
DAMAGE_SCALE = 1e5


@dataclass(frozen=True)
class Item:
    """The candidates of one tensor, or of several that must share a type; all arrays have one entry a candidate.

    `damage` is additive over items, in any unit; `seconds` are needed only where speed is bounded.
    """

    bytes: NDArray[np.int64]
    damage: NDArray[np.float64]
    seconds: NDArray[np.float64] | None = None


def solve(items: Sequence[Item], budget: int, max_seconds: float | None = None) -> list[int]:
    """The index of each item's candidate: the least total damage within `budget` bytes, and within `max_seconds`.

    Proven optimal: HiGHS runs until its bounds meet. Raises InputError when nothing fits; the message names the
    smallest possible size.
    """
    lows = [int(item.bytes.min()) for item in items]
    room = budget - sum(lows)
    if room < 0:
        raise InputError(f"nothing fits in {budget:,} bytes: the smallest possible is {sum(lows):,} bytes")
    # Bytes and damage are counted from each item's smallest: small numbers keep HiGHS's tolerances below one byte.
    extra = np.concatenate([item.bytes - low for item, low in zip(items, lows, strict=True)])
    damage = np.concatenate([item.damage - item.damage.min() for item in items])
    starts = np.cumsum([0, *(len(item.bytes) for item in items)])
    owner = np.repeat(np.arange(len(items)), np.diff(starts))
    constraints = [LinearConstraint(csr_matrix((np.ones(len(owner)), (owner, np.arange(len(owner))))), 1, 1)]
    if max_seconds is not None:
        seconds = np.concatenate([np.asarray(item.seconds) for item in items])
        constraints.append(LinearConstraint(csr_matrix(seconds[None] / max_seconds), -np.inf, 1))
    byte_unit = max(1.0, float(extra.max()) / 1e4)
    limit = room
    while True:
        fits = LinearConstraint(csr_matrix(extra[None] / byte_unit), -np.inf, limit / byte_unit)
        with _quiet_stdout():
            result = milp(
                damage * (DAMAGE_SCALE / (damage.max() or 1.0)),
                constraints=[*constraints, fits],
                integrality=np.ones(len(owner)),
                bounds=Bounds(0, 1),
                options={"mip_rel_gap": 0},
            )
        if result.x is None:
            raise InputError(f"nothing of at most {budget:,} bytes meets the floor on speed: relax one of the two")
        chosen = [int(result.x[start:end].argmax()) for start, end in pairwise(starts)]
        used = int(sum(extra[start + choice] for start, choice in zip(starts[:-1], chosen, strict=True)))
        if used <= room:
            return chosen
        limit -= used - room  # within HiGHS's tolerance, but over the budget


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """HiGHS prints a debugging line to the process's stdout now and then, whatever its options say."""
    saved, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)
