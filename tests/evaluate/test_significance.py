"""Intervals and tests against scipy and textbook values."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from gguf_golf.evaluate import significance


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_is_scipys(n: int, share: float) -> None:
    right = round(share * n)
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert significance.wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (significance.wilson(0, n)[0], significance.wilson(n, n)[1]) == (0, 1)


def test_mcnemar_is_the_sign_test_of_discordant_pairs() -> None:
    assert significance.mcnemar(0, 0) == 1.0
    assert significance.mcnemar(5, 5) == 1.0
    assert significance.mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert significance.mcnemar(3, 9) == significance.mcnemar(9, 3) == pytest.approx(0.1459960938)


def test_retained_is_relative_to_chance_with_an_interval_around_it() -> None:
    rng = np.random.default_rng(8)
    base = (rng.random(800) < 0.75).astype(float)
    ours = base * (rng.random(800) < 0.8)  # keeps 0.6 of 0.75
    share, low, high = significance.retained(ours, base, 0.25)
    assert share == pytest.approx((ours.mean() - 0.25) / (base.mean() - 0.25))
    assert low is not None
    assert high is not None
    assert low < share < high
    assert 0.05 < high - low < 0.25
    # no flips among 800: up to 3 in 800 are likely all the same, out of 0.5 above chance
    share, low, high = significance.retained(base, base, 0.25)
    assert share == 1
    assert low == pytest.approx(1 - 3 / 800 / 0.5, abs=2e-3)
    assert high == pytest.approx(1 + 3 / 800 / 0.5, abs=2e-3)


@given(
    answers=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12),
    chance=st.sampled_from([0.0, 0.25, 0.5]),
)
@example(answers=[(0, 0)] * 7, chance=0.0)
@example(answers=[(1, 1)] + [(0, 0)] * 4, chance=0.0)
def test_few_questions_have_a_finite_interval_or_none(answers: list[tuple[int, int]], chance: float) -> None:
    ours, theirs = zip(*answers, strict=True)
    found = significance.retained(ours, theirs, chance)
    assert found == (None, None, None) or np.isfinite(found).all()


def test_a_base_at_chance_carries_no_verdict() -> None:
    base = np.tile([1.0, 0, 0, 0], 25)
    assert significance.retained(base, base, 0.25) == (None, None, None)
