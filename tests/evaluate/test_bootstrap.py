"""Bootstrap errors against theory and brute force."""

import numpy as np
import pytest

from gguf_golf.evaluate import bootstrap


def test_independent_tokens_give_the_textbook_error() -> None:
    values = np.random.default_rng(3).standard_normal((200, 100))
    assert bootstrap.mean_error(values) == pytest.approx(1 / np.sqrt(values.size), rel=0.15)


def test_tokens_that_agree_within_a_chunk_give_the_error_of_chunks() -> None:
    values = np.repeat(np.random.default_rng(4).standard_normal((200, 1)), 100, 1)
    assert bootstrap.mean_error(values) == pytest.approx(1 / np.sqrt(200), rel=0.15)


def test_quantile_errors_equal_brute_force() -> None:
    values = np.random.default_rng(5).random((12, 30))
    samples = []
    for weights in bootstrap.chunk_weights(12):
        drawn = np.sort(np.concatenate([values[i] for i, times in enumerate(weights) for _ in range(times)]))
        samples.append([drawn[max(int(np.ceil(f * len(drawn))) - 1, 0)] for f in (0.5, 0.9)])
    expected = np.std(samples, axis=0, ddof=1)
    np.testing.assert_allclose(bootstrap.quantile_errors(values, (0.5, 0.9)), expected, rtol=1e-9)


def test_one_chunk_has_no_spread() -> None:
    assert bootstrap.mean_error(np.ones((1, 9))) is None
    assert bootstrap.quantile_errors(np.ones((1, 9)), (0.5, 0.99)) == [None, None]


def test_the_same_scores_give_the_same_errors() -> None:
    values = np.random.default_rng(6).random((9, 20))
    assert bootstrap.mean_error(values) == bootstrap.mean_error(values.copy())
