"""How often tokens will be said, checked against another half of a text."""

import numpy as np
import pytest

from gguf_golf.calibrate.frequency import coverage, most_frequent


def test_the_most_frequent_tokens_come_in_ascending_order_and_ties_go_to_the_lower_number():
    counts = np.array([1, 5, 0, 5, 2, 1])
    assert most_frequent(counts, 2).tolist() == [1, 3]
    assert most_frequent(counts, 4).tolist() == [0, 1, 3, 4]
    assert most_frequent(counts, 6).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("n", [16, 128, 1024])
def test_the_share_that_is_expected_is_the_share_of_another_text(n):
    """Tokens by Zipf's law: the counts of one text alone promise too much."""
    chances = 1 / np.arange(1, 20001)
    chances /= chances.sum()
    rng = np.random.default_rng(2)
    one, other = (rng.multinomial(16_000, chances) for _ in range(2))
    share = other[most_frequent(one, n)].sum() / other.sum()
    assert coverage(one, n) == pytest.approx(share, abs=0.015)
    assert one[most_frequent(one, 1024)].sum() / one.sum() > coverage(one, 1024) + 0.03


def test_without_a_text_nothing_is_covered():
    assert coverage(np.zeros(10, np.int64), 5) == 0
    assert coverage(np.array([3, 0, 0]), 0) == 0
