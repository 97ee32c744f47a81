"""How a tensor's error is spread over its rows and input channels, and whether other text would say the same."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode import Guide
from gguf_golf.models import LazyTensor
from gguf_golf.sensitivity.distortion import Slab
from gguf_golf.sensitivity.result import TensorSensitivity

SHARES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
"""Where the concentration curves of rows and channels are read."""


class Spread:
    """The weighted squared error of a tensor by row and by input channel, as each of several guides weighs it.

    `guides` are those of all text and of two samples of it.
    """

    def __init__(self, tensor: LazyTensor, guides: tuple[Guide, Guide, Guide]) -> None:
        self._weights = [guide.importance(tensor.name, tensor.shape[-1], tensor.n_experts) for guide in guides]
        self._by_row = np.zeros((len(guides), tensor.n_rows), np.float32)
        self._by_channel = np.zeros((len(guides), tensor.shape[-1]), np.float32)

    def add(self, slab: Slab) -> None:
        """Count the rows of a slab, each row once."""
        squared = np.square(slab.values - slab.stored)
        rows, columns = slice(slab.first, slab.first + len(squared)), squared.sum(0)
        for index, weights in enumerate(self._weights):
            h = np.ones_like(columns) if weights is None else weights[slab.expert]
            self._by_row[index, rows] = squared @ h
            self._by_channel[index] += h * columns

    def describe(self, entry: TensorSensitivity) -> TensorSensitivity:
        """The entry with its concentration curves, and how alike the rankings of the two samples of text are."""
        entry = replace(entry, row_share=_shares(self._by_row[0]), channel_share=_shares(self._by_channel[0]))
        if any(weights is None for weights in self._weights[1:]):
            return entry
        return replace(
            entry,
            row_stability=spearman(*self._by_row[1:]),
            channel_stability=spearman(*self._by_channel[1:]),
        )


def stability(tensors: list[TensorSensitivity]) -> dict[str, float]:
    """Spearman's rank correlation of tensors, rows and channels between disjoint samples, and of proxy and damage."""
    reached = [tensor for tensor in tensors if tensor.measured]
    shared = min(len(tensor.measured[0].kld) for tensor in reached)
    klds = np.array([tensor.measured[0].kld[:shared] for tensor in reached])
    found = {"proxy": spearman([t.proxy for t in reached], [t.coefficient for t in reached])}
    if klds.shape[1] > 1:
        found["tensor"] = spearman(klds[:, 0::2].mean(1), klds[:, 1::2].mean(1))
    for grain, values in (
        ("row", [t.row_stability for t in reached if t.row_stability is not None]),
        ("channel", [t.channel_stability for t in reached if t.channel_stability is not None]),
    ):
        if values:
            found[grain] = float(np.mean(values))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def spearman(a: NDArray[np.floating] | list[float], b: NDArray[np.floating] | list[float]) -> float:
    """Spearman's rank correlation; NaN for fewer than two values, and where one side is all the same.

    scipy.stats has it, and takes half a second to import, in every worker.
    """
    if len(a) < 2:
        return math.nan
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing varies
        return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: NDArray[np.floating] | list[float]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = sizes.cumsum() - (sizes - 1) / 2
    return ranks[group]


def _shares(values: NDArray[np.float32]) -> dict[str, float]:
    descending = np.sort(values.astype(np.float64))[::-1]
    cumulated = np.cumsum(descending) / (descending.sum() or 1.0)
    return {f"{share:g}": float(cumulated[max(1, round(share * len(values))) - 1]) for share in SHARES}
