"""Token scores against plain float64 definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from gguf_golf.errors import DataError
from gguf_golf.evaluate.divergence import Scorer, _top_five


def example(seed: int, n: int, n_vocab: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = (rng.standard_normal((n, n_vocab)) * spread).astype(np.float32)
    changed = base + (rng.standard_normal((n, n_vocab)) * 0.3).astype(np.float32)
    return base, changed, rng.integers(0, n_vocab, n).astype(np.int32)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    n_vocab=st.sampled_from([6, 37, 640, 1001, 70_001]),
    spread=st.floats(0.1, 3),
)
def test_scores_are_their_definitions(seed: int, n: int, n_vocab: int, spread: float) -> None:
    base, changed, targets = example(seed, min(n, 4) if n_vocab > 10_000 else n, n_vocab, spread)
    with Scorer(2) as scorer:
        rows, nll_base = scorer.encode(base, targets)
        scores = scorer.compare(changed, targets, rows)
    log_p = log_softmax(changed.astype(np.float64), 1)
    log_p_base = log_softmax(base.astype(np.float64), 1)
    row = np.arange(len(targets))
    np.testing.assert_allclose(scores["nll"], -log_p[row, targets], rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(nll_base, -log_p_base[row, targets], rtol=2e-5, atol=1e-5)
    kld = (np.exp(log_p_base) * (log_p_base - log_p)).sum(1)
    np.testing.assert_allclose(scores["kld"], kld, rtol=2e-3, atol=2e-4)  # 16 bits and what is below e^-16
    p_diff = np.exp(log_p[row, targets]) - np.exp(log_p_base[row, targets])
    np.testing.assert_allclose(scores["p_diff"], p_diff, atol=2e-4)


def test_top_agreement_counts_sets() -> None:
    base = np.tile(np.arange(1000, dtype=np.float32) / 100, (4, 1))  # best: 999, 998, ...
    changed = base.copy()
    changed[1, [998, 999]] = changed[1, [999, 998]]  # another first, the same five
    changed[2, [995, 994]] = changed[2, [994, 995]]  # the same first, another five
    changed[3, 0] = 99  # another first, another five
    with Scorer(1) as scorer:
        rows, _ = scorer.encode(base, np.zeros(4, np.int32))
        scores = scorer.compare(changed, np.zeros(4, np.int32), rows)
    assert scores["top1"].tolist() == [1, 0, 1, 0]
    assert scores["top5"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("n_vocab", [5, 639, 640, 641, 4096, 50_001])
def test_top_five_is_the_sorted_top_five(n_vocab: int) -> None:
    values = np.random.default_rng(n_vocab).permuted(np.tile(np.arange(n_vocab, dtype=np.float32), (7, 1)), axis=1)
    np.testing.assert_array_equal(_top_five(values), np.sort(np.argsort(values, 1)[:, -5:], 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    base, changed, targets = example(1, 3, 50, 1.0)
    changed[1, 7] = bad
    with Scorer(1) as scorer:
        rows, _ = scorer.encode(base, targets)
        with pytest.raises(DataError, match="NaN or Inf"):
            scorer.compare(changed, targets, rows)
