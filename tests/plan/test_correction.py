"""What measured files teach: the right factors where they differ, nothing where they do not, and never too much."""

import math

import pytest

from gguf_golf.plan.correction import REFERENCE, Correction, Observation, learn

PLANNED = {("vocabulary", "ours"): 0.01, ("attention", "ours"): 0.02, ("MLP", "ours"): 0.03}
MIX = {("vocabulary", "mainline"): 0.01, ("attention", "mainline"): 0.09, ("MLP", "mainline"): 0.05}


def predicted(correction, parts):
    return correction.total(sum(damage * correction.factor(part) for part, damage in parts.items()))


def test_nothing_measured_corrects_nothing():
    assert learn([]) == Correction()
    assert Correction().total(0.1) == pytest.approx(0.1)
    assert Correction().total(0) == 0


def test_a_common_factor_is_found_and_holds_for_other_files():
    correction = learn([Observation(PLANNED, 1.3 * 0.06, 0.001), Observation(MIX, 1.3 * 0.15, 0.002)])
    assert predicted(correction, PLANNED) == pytest.approx(1.3 * 0.06, rel=0.03)
    small = {part: damage / 4 for part, damage in PLANNED.items()}
    assert predicted(correction, small) == pytest.approx(1.3 * 0.015, rel=0.06)


def test_what_two_files_disagree_about_goes_to_what_sets_them_apart():
    correction = learn([Observation(PLANNED, 0.06 * 1.2, 0.0005), Observation(MIX, 0.15 * 0.9, 0.001)])
    assert correction.factor(("MLP", "ours")) > 1.05 * correction.factor(("MLP", "mainline"))
    assert predicted(correction, PLANNED) == pytest.approx(0.06 * 1.2, rel=0.06)


def test_factors_stay_near_one_however_far_off_a_file_is():
    correction = learn([Observation(PLANNED, 0.06 * 5, 0.001)])
    for part in PLANNED:
        assert 0.7 < correction.factor(part) < 1.5
    assert math.exp(correction.log_scale) > 3


def test_a_noisy_measurement_teaches_less():
    sharp, noisy = (learn([Observation(PLANNED, 0.12, se)]) for se in (0.001, 0.2))
    assert 0 < noisy.log_scale < 0.5 * sharp.log_scale


def test_files_without_damage_are_passed_over():
    assert learn([Observation({}, 0.1, 0.01), Observation(PLANNED, 0.0, 0.0)]) == Correction()


def test_the_slope_makes_large_damages_grow_faster_or_slower():
    steep = Correction(slope=0.1)
    assert steep.total(REFERENCE) == pytest.approx(REFERENCE)
    assert steep.total(10 * REFERENCE) == pytest.approx(10**1.1 * REFERENCE)
