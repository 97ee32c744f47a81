"""Shrinkage against what it promises: less error than the raw estimates, and sense at the extremes."""

import numpy as np
import pytest

from gguf_golf.sensitivity.shrinkage import Common, Estimate, common

VAGUE = Common(mean=0.0, variance=100.0, between=1.0)


def test_shrunk_estimates_are_closer_to_the_truth_than_raw_ones() -> None:
    rng = np.random.default_rng(0)
    raw, shrunk = 0.0, 0.0
    for _ in range(50):
        truth = 1 + 0.1 * rng.standard_normal(12)
        noise = rng.uniform(0.05, 0.5, 12)
        measured = [
            Estimate(float(v), float(s**2)) for v, s in zip(truth + noise * rng.standard_normal(12), noise, strict=True)
        ]
        prior = common(measured, Common(1.0, 0.1, 0.01))
        raw += sum((each.value - true) ** 2 for each, true in zip(measured, truth, strict=True))
        shrunk += sum((prior.shrink(each).value - true) ** 2 for each, true in zip(measured, truth, strict=True))
    assert shrunk < 0.3 * raw


def test_estimates_without_noise_stay_where_they_are() -> None:
    measured = [Estimate(value, 1e-10) for value in (0.5, 1.0, 2.0)]
    prior = common(measured, VAGUE)
    assert [prior.shrink(each).value for each in measured] == pytest.approx([0.5, 1.0, 2.0], abs=1e-6)
    assert prior.mean == pytest.approx(7 / 6, abs=0.1)


def test_what_was_not_measured_takes_the_mean_with_a_wider_bar_than_what_was() -> None:
    measured = [Estimate(value, 0.01) for value in (0.9, 1.0, 1.2)]
    prior = common(measured, VAGUE)
    assert prior.prediction().value == prior.mean
    assert prior.prediction().variance > prior.shrink(measured[0]).variance


def test_without_any_measurement_the_prior_remains() -> None:
    assert common([], VAGUE) == VAGUE


def test_one_wild_measurement_with_a_wide_bar_hardly_moves_anything() -> None:
    prior = common([Estimate(1.0, 0.01)] * 5 + [Estimate(-3.0, 25.0)], Common(1.0, 0.01, 0.01))
    assert prior.mean == pytest.approx(1.0, abs=0.05)
    assert prior.shrink(Estimate(-3.0, 25.0)).value == pytest.approx(1.0, abs=0.1)
