"""Coefficients, exponents and their error bars, from measurements of a model that is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gguf_golf.sensitivity.estimate import UNREACHED_SD, estimate
from gguf_golf.sensitivity.result import Measurement, TensorSensitivity

ERRORS = {"tcq1": 0.2, "tcq2": 0.05, "tcq3": 0.013, "q8_0": 1e-5, "q1_0": 0.4}
SEGMENTS = 12


def tensor(name, coefficient, exponent, rng, noise=0.2, beyond=True):
    """A tensor whose damage is coefficient * E up to 0.05, and grows with `exponent` from there."""

    def kld(error, n):
        level = coefficient * error * max(1.0, error / 0.05) ** (exponent - 1)
        return (level * np.exp(noise * rng.standard_normal(n))).tolist()

    measured = [Measurement("tcq2", 0.05, kld(0.05, SEGMENTS))]
    if beyond:
        measured.append(Measurement("tcq1", 0.2, kld(0.2, 4)))
    return TensorSensitivity(name, [64, 256], ERRORS, 1.0, 1.0, measured=measured)


def layers(kind, n, rng, **options):
    return [tensor(f"blk.{layer}.{kind}.weight", 1 + layer % 3, rng=rng, **options) for layer in range(n)]


def test_damage_is_linear_up_to_the_anchor_and_a_power_beyond():
    rng = np.random.default_rng(0)
    found = estimate(layers("attn_q", 6, rng, exponent=1.3, noise=0.01))
    for each in found:
        anchor = np.mean(each.measured[0].kld)
        assert each.damage("tcq2") == pytest.approx(anchor)
        assert each.damage("tcq3") == pytest.approx(anchor * 0.013 / 0.05)
        assert each.damage("tcq1") == pytest.approx(anchor * 4**1.3, rel=0.05)


def test_wild_exponents_are_drawn_to_those_of_their_kind():
    """Each tensor's own exponent scatters by 0.5; what is kept of it scatters much less about the truth."""
    rng = np.random.default_rng(1)
    found = estimate([*layers("attn_q", 8, rng, exponent=1.1, noise=1.0), *layers("ffn_up", 8, rng, exponent=1.3)])
    own = [
        math.log(np.mean(each.measured[1].kld) / np.mean(each.measured[0].kld[:4])) / math.log(4) for each in found[:8]
    ]
    kept = [each.exponent for each in found[:8]]
    assert np.std(kept) < 0.5 * np.std(own)
    assert all(0.6 < exponent < 1.5 for exponent in kept)
    assert np.mean([each.exponent for each in found[8:]]) > np.mean(kept)


def test_a_tensor_without_an_exponent_of_its_own_takes_its_kinds_with_a_wider_bar():
    rng = np.random.default_rng(2)
    alike = layers("ffn_down", 4, rng, exponent=1.2)
    found = estimate([*alike, tensor("blk.9.ffn_down.weight", 1.0, 1.2, rng, beyond=False)])
    assert found[-1].exponent == pytest.approx(np.mean([each.exponent for each in found[:-1]]), abs=0.1)
    assert found[-1].exponent_sd >= max(each.exponent_sd for each in found[:-1])


def test_bars_grow_with_noise_and_with_the_distance_from_what_was_measured():
    rng = np.random.default_rng(3)
    calm, noisy = estimate(layers("a", 1, rng, exponent=1.0)), estimate(layers("a", 1, rng, exponent=1.0, noise=1.0))
    assert noisy[0].uncertainty("tcq2") > 2 * calm[0].uncertainty("tcq2")
    bars = [calm[0].uncertainty(name) for name in ("tcq2", "tcq3", "q8_0")]
    assert bars == sorted(bars) and bars[0] < bars[-1]
    assert calm[0].uncertainty("q1_0") > calm[0].uncertainty("tcq1") > calm[0].uncertainty("tcq2")


def test_a_tensor_that_the_text_never_reaches_takes_the_median_of_its_kind_by_size_with_a_wide_bar():
    rng = np.random.default_rng(4)
    alike = layers("ffn_up", 3, rng, exponent=1.0, noise=0.01)
    unreached = replace(alike[0], name="blk.7.ffn_up.weight", shape=[128, 256], measured=[])
    found = estimate([*alike, unreached])
    assert found[-1].coefficient == pytest.approx(2 * np.median([each.coefficient for each in found[:-1]]), rel=0.01)
    assert found[-1].uncertainty("tcq2") == pytest.approx(UNREACHED_SD)


def test_damage_that_is_all_noise_is_zero_with_a_wide_bar():
    silent = TensorSensitivity(
        "blk.0.x.weight", [4, 256], ERRORS, 1.0, 1.0, measured=[Measurement("tcq2", 0.05, [-1e-9, 1e-9, -1e-9])]
    )
    (found,) = estimate([silent])
    assert found.coefficient == 0
    assert found.coefficient_sd == UNREACHED_SD


def test_without_measurements_nothing_is_estimated():
    plain = TensorSensitivity("blk.0.x.weight", [4, 256], ERRORS, 2.0, 2.0)
    assert estimate([plain]) == [plain]
    assert plain.damage("tcq2") == pytest.approx(2.0 * 0.05)
    assert plain.uncertainty("tcq2") == 0


def test_damage_that_hardly_grows_makes_no_bargain_of_the_coarsest_type():
    """Two bits and one cost the same here, by whatever chance: a plan must not believe that for less than one bit."""
    flat = [Measurement("tcq2", 0.05, [0.01] * 12), Measurement("tcq1", 0.2, [0.01] * 4)]
    (found,) = estimate([TensorSensitivity("blk.0.x.weight", [4, 256], ERRORS, 1.0, 1.0, measured=flat)])
    assert found.damage("q1_0") > 5 * found.damage("tcq2")
