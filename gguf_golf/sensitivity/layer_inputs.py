"""Some of the inputs of every linear layer, kept in a scratch file: what errors of weights are judged by.

They come from a text that calibration has not seen, so that an encoder is not judged by what it was optimised for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.hessian import Rows

FloatArray = NDArray[np.float32]


class LayerInputs:
    """Every `stride`-th input of every expert of every weight. Use as a context manager; the file goes at its end.

    Weights that share an input share its rows.
    """

    def __init__(self, path: Path, stride: int) -> None:
        self._path, self._stride = path, stride
        self._file: BinaryIO = path.open("w+b")
        self._places: dict[str, list[tuple[int, int, int, int]]] = {}  # of a weight: (expert, offset, rows, columns)
        self._latest: tuple[tuple[str, int], FloatArray, tuple[int, int, int, int]] | None = None

    def __enter__(self) -> "LayerInputs":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def observe(self, rows: Rows) -> None:
        """Keep some of the rows that enter a weight, scaled so that their squares sum to what all would sum to."""
        kept = rows.x[:: self._stride]
        kept = kept * np.float32(np.sqrt(len(rows.x) / len(kept)))
        key = (rows.source, rows.expert)
        if self._latest is not None and self._latest[0] == key and np.array_equal(self._latest[1], kept):
            place = self._latest[2]
        else:
            place = (rows.expert, self._file.seek(0, 2), *kept.shape)
            self._file.write(np.ascontiguousarray(kept, np.float32).data)
        self._latest = (key, kept, place)
        self._places.setdefault(rows.weight, []).append(place)

    def experts(self, weight: str) -> Iterator[tuple[int, FloatArray]]:
        """(expert, its inputs f32 [n, k]) for every expert of a weight that the text reached, in their order."""
        by_expert: dict[int, list[FloatArray]] = {}
        self._file.flush()
        for expert, offset, n, k in self._places.get(weight, []):
            rows = np.fromfile(self._path, np.float32, n * k, offset=offset).reshape(n, k)
            by_expert.setdefault(expert, []).append(rows)
        for expert in sorted(by_expert):
            yield expert, np.concatenate(by_expert[expert])
