"""Experts with few tokens take after their siblings, those with many do not, and it helps."""

import numpy as np
import pytest

from gguf_golf.calibrate.hessian import Accumulator, Hessians, Rows, Survey
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import shrunk

NAME, K = "blk.0.ffn_up_exps.weight", 64


def truth(rng, n_experts):
    """E[x^2] of experts that are alike, f64 [n_experts, K]."""
    common = rng.gamma(1.0, 1.0, K) + 0.05
    return common * np.exp(0.3 * rng.standard_normal((n_experts, K)))


def observed(rng, second_moments, counts):
    """An imatrix of so many tokens of each expert."""
    sums = np.stack(
        [m * np.square(rng.standard_normal((n, K))).sum(0) for m, n in zip(second_moments, counts, strict=True)]
    )
    return Imatrix({NAME: ImatrixEntry(sums, np.array(counts, np.int64))})


def distance(found, wanted):
    return float(np.square(np.log(np.maximum(found, 1e-9) / wanted)).mean())


def test_an_expert_of_few_tokens_comes_closer_to_the_truth():
    rng = np.random.default_rng(0)
    wanted = truth(rng, 8)
    imatrix = observed(rng, wanted, [2000, 1500, 1800, 900, 1200, 3, 5, 2])
    raw, found = imatrix.importance(NAME), shrunk.importance(imatrix, NAME)
    assert distance(found[5:], wanted[5:]) < 0.4 * distance(raw[5:], wanted[5:])


def test_an_expert_of_many_tokens_stays_what_it_is():
    rng = np.random.default_rng(1)
    imatrix = observed(rng, truth(rng, 4), [50_000, 40_000, 60_000, 10])
    raw, found = imatrix.importance(NAME), shrunk.importance(imatrix, NAME)
    assert found[:3] == pytest.approx(raw[:3], rel=0.01)


def test_an_expert_that_was_never_chosen_has_what_its_siblings_have():
    rng = np.random.default_rng(2)
    wanted = truth(rng, 4)
    imatrix = observed(rng, wanted, [3000, 3000, 3000, 0])
    found = shrunk.importance(imatrix, NAME)
    assert distance(found[3], wanted[3]) < 0.3 * distance(np.ones(K), wanted[3])
    assert "never chose 1 of 4 experts" in imatrix.notes()[0]


def test_a_matrix_of_its_own_is_not_touched_and_nothing_known_is_ones():
    rng = np.random.default_rng(3)
    alone = observed(rng, truth(rng, 1), [3])
    assert np.array_equal(shrunk.importance(alone, NAME), alone.importance(NAME))
    assert alone.notes() == []
    nothing = Imatrix({NAME: ImatrixEntry(np.zeros((2, K)), np.zeros(2, np.int64))})
    assert (shrunk.importance(nothing, NAME) == 1).all()


@pytest.fixture
def hessians(tmp_path):
    """Three experts with inputs of one covariance: 5000, 20 and no tokens."""
    rng = np.random.default_rng(4)
    mixed = rng.normal(size=(K, K)).astype(np.float32)
    rows = [
        Rows(NAME, "x", 3, e, (rng.normal(size=(n, K)) @ mixed).astype(np.float32)) for e, n in ((0, 5000), (1, 20))
    ]
    survey = Survey()
    survey.observe(rows[0])
    with Accumulator(tmp_path / "hessians", survey) as sums:
        for each in rows:
            sums.observe(each)
    return Hessians(tmp_path / "hessians"), mixed.T.astype(np.float64) @ mixed


def test_hessians_of_few_tokens_come_closer_to_the_truth(hessians):
    found, wanted = hessians

    def error(hessian):
        return float(np.linalg.norm(hessian - wanted) / np.linalg.norm(wanted))

    assert np.array_equal(shrunk.hessian(found, NAME, 0), found.get(NAME, 0)), "5000 tokens are enough for 64 channels"
    assert error(shrunk.hessian(found, NAME, 1)) < 0.6 * error(found.get(NAME, 1))
    assert error(shrunk.hessian(found, NAME, 2)) < 0.1
    assert found.get(NAME, 2) is None
