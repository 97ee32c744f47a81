"""What a cell is compared with: the same bytes on whole tensors at a higher rate, interpolated between files."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = Mapping[str, Any]

BEYOND = 1.02
"""How far a file may lie beyond the last measured one, as a factor of its bytes."""


@dataclass(frozen=True)
class Ratio:
    """KLD over that of the reference, and its standard error: over chunks of text, paired, and over seeds."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


class Results:
    """The records of all journals."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self._references: dict[tuple[Any, ...], tuple[NDArray[np.float64], NDArray[np.float64]] | None] = {}

    @classmethod
    def read(cls, path: Path) -> "Results":
        """All cells of a file of JSON lines; head lines of journals are skipped."""
        lines = path.read_text(encoding="utf-8").splitlines()
        return cls([record for line in lines if "experiment" in (record := json.loads(line))])

    @property
    def models(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(record["model"] for record in self.records))

    def find(self, experiment: str, model: str, **key: Any) -> list[Record]:
        """The cells with these values in their key, one for each seed (or more, if the key leaves that open)."""
        return list(self._matching(experiment, model, key))

    def ratio(
        self, cells: Iterable[Record], reference: Mapping[str, Any], size: str = "bytes", text: str = "wiki"
    ) -> str:
        """KLD of the same cell with several seeds over the reference's at equal bytes, or "" where there is none."""
        found = [r for cell in cells if (r := self._ratio(cell, reference, size, text)) is not None]
        return str(combined(found)) if found else ""

    def mean(self, cells: Iterable[Record], text: str = "wiki") -> float:
        """Mean KLD over chunks and seeds."""
        return float(np.mean([cell[text]["kld"] for cell in cells]))

    def _matching(self, experiment: str, model: str, key: Mapping[str, Any]) -> Iterator[Record]:
        for record in self.records:
            if (record["experiment"], record["model"]) == (experiment, model) and key.items() <= record["key"].items():
                yield record

    def _ratio(self, cell: Record, reference: Mapping[str, Any], size: str, text: str) -> Ratio | None:
        line = self._reference(cell["model"], cell["seed"], reference, text)
        n_bytes = math.log(cell[size])
        if line is None or not line[0][0] - math.log(BEYOND) <= n_bytes <= line[0][-1] + math.log(BEYOND):
            return None
        expected = np.exp([_between(n_bytes, line[0], chunk) for chunk in line[1].T])
        return paired(np.array(cell[text]["kld"]), expected)

    def _reference(
        self, model: str, seed: int, key: Mapping[str, Any], text: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """(log bytes [n], log KLD [n, chunks]) of the reference's files, smallest first."""
        name = (model, seed, tuple(sorted(key.items())), text)
        if name not in self._references:
            asked = {k: v for k, v in key.items() if k != "experiment"}
            cells = [c for c in self.find(key.get("experiment", "reference"), model, **asked) if c["seed"] == seed]
            by_size = {cell["bytes"]: cell[text]["kld"] for cell in cells if "by" not in cell["key"]}
            sizes = sorted(by_size)
            logs = np.log([by_size[n] for n in sizes]) if sizes else None
            self._references[name] = None if logs is None or len(sizes) < 2 else (np.log(sizes), logs)
        return self._references[name]


def _between(x: float, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> float:
    """Linear between points, and beyond the ends as between the last two."""
    i = int(np.clip(np.searchsorted(xs, x), 1, len(xs) - 1))
    return float(ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1]))


def paired(found: NDArray[np.float64], expected: NDArray[np.float64]) -> Ratio:
    """The ratio of two means over the same chunks, with its jackknife standard error."""
    n = len(found)
    left_out = (found.sum() - found) / (expected.sum() - expected)
    error = math.sqrt((n - 1) / n * float(np.square(left_out - left_out.mean()).sum())) if n > 1 else math.nan
    return Ratio(float(found.mean() / expected.mean()), error)


def combined(ratios: Sequence[Ratio]) -> Ratio:
    """The mean over seeds; its error is the larger of what chunks and what seeds say."""
    n = len(ratios)
    values = np.array([ratio.value for ratio in ratios])
    over_chunks = math.sqrt(sum(ratio.error**2 for ratio in ratios)) / n
    over_seeds = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Ratio(float(values.mean()), max(over_chunks, over_seeds))
