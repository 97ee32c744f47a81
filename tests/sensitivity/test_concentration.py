"""Rank correlations, against scipy's."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from gguf_golf.sensitivity.concentration import spearman


@pytest.mark.parametrize("levels", [3, 1000])  # many equal values, few
def test_the_rank_correlation_is_scipys(levels: int) -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(0, levels, 200).astype(np.float32)
    b = (a + rng.integers(0, levels, 200)).astype(np.float32)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, rel=1e-12)


def test_what_does_not_vary_has_none() -> None:
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0])) and math.isnan(spearman([1.0], [2.0]))
