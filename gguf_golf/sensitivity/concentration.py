"""How a tensor's error is spread over its rows and input channels, and whether other text would say the same."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gguf_golf.encode import Guide
from gguf_golf.sensitivity.distortion import Rows
from gguf_golf.sensitivity.result import TensorSensitivity

SHARES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
"""Where the concentration curves of rows and channels are read."""


def concentration(
    entry: TensorSensitivity, rows: Rows, squared: NDArray[np.float32], samples: tuple[Guide, Guide]
) -> TensorSensitivity:
    """The entry with its concentration curves, and how alike the rankings of two samples of text are.

    `squared` f32 [n, k] is the squared error of each weight of `rows`.
    """

    def by_row_and_channel(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weighted = squared * rows.column_weight
        return weighted.sum(1), weighted.sum(0)

    by_row, by_channel = by_row_and_channel(rows)
    entry = replace(entry, row_share=_shares(by_row), channel_share=_shares(by_channel))
    even, odd = (replace(rows, guide=guide) for guide in samples)
    if even.importance is None or odd.importance is None:
        return entry
    (even_row, even_channel), (odd_row, odd_channel) = by_row_and_channel(even), by_row_and_channel(odd)
    return replace(
        entry, row_stability=spearman(even_row, odd_row), channel_stability=spearman(even_channel, odd_channel)
    )


def stability(tensors: list[TensorSensitivity]) -> dict[str, float]:
    """Spearman's rank correlation of tensors, rows and channels between disjoint samples, and of proxy and damage."""
    reached = [tensor for tensor in tensors if tensor.measured]
    klds = np.array([tensor.measured[0].kld for tensor in reached])
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
    """Spearman's rank correlation; NaN for fewer than two values."""
    return float(spearmanr(a, b).statistic) if len(a) > 1 else math.nan


def _shares(values: NDArray[np.float32]) -> dict[str, float]:
    descending = np.sort(values.astype(np.float64))[::-1]
    cumulated = np.cumsum(descending) / (descending.sum() or 1.0)
    return {f"{share:g}": float(cumulated[max(1, round(share * len(values))) - 1]) for share in SHARES}
