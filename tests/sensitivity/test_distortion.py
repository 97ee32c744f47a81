"""The measure of error against plain NumPy, and sampling."""

from itertools import pairwise

import numpy as np
import pytest

from gguf_golf.formats import types
from gguf_golf.models import LazyTensor
from gguf_golf.sensitivity import distortion

RNG = np.random.default_rng(5)
VALUES = RNG.normal(size=(64, 256)).astype(np.float32)
IMPORTANCE = RNG.uniform(0.1, 4, (2, 256)).astype(np.float32)


@pytest.fixture
def experts():
    """Two experts of 32 rows, each with an importance of its own."""
    return LazyTensor("blk.0.ffn_up_exps.weight", (2, 32, 256), "F32", lambda first, last: VALUES[first:last].copy())


def test_relative_error_is_the_formula(experts):
    rows = distortion.whole(experts, IMPORTANCE)
    new = VALUES + RNG.normal(scale=0.1, size=VALUES.shape).astype(np.float32)
    weight = np.repeat(IMPORTANCE, 32, axis=0).astype(np.float64)
    expected = (weight * (VALUES.astype(np.float64) - new) ** 2).sum() / (weight * VALUES.astype(np.float64) ** 2).sum()
    assert distortion.relative_error(rows, new) == pytest.approx(expected, rel=1e-5)
    uniform = distortion.relative_error(distortion.whole(experts, None), new)
    assert uniform == pytest.approx(((VALUES - new) ** 2).sum() / (VALUES**2).sum(), rel=1e-5)


def test_samples_are_spaced_evenly(experts):
    rows = distortion.sample(experts, IMPORTANCE, weights=8 * 256)
    assert rows.values.shape == (8, 256)
    assert np.array_equal(rows.values, VALUES[4::8])
    assert rows.group.tolist() == [0] * 4 + [1] * 4
    assert np.array_equal(distortion.sample(experts, None).values, VALUES)


def test_each_expert_is_coded_with_its_own_importance(experts):
    """Coding under the right importance leaves less weighted error than under the other expert's."""
    rows = distortion.whole(experts, IMPORTANCE)
    right = distortion.relative_error(rows, distortion.stored(rows, types.get("tcq2"), 2))
    swapped = distortion.whole(experts, IMPORTANCE[::-1])
    wrong = distortion.relative_error(rows, distortion.stored(swapped, types.get("tcq2"), 2))
    assert right < 0.95 * wrong


def test_every_type_has_an_error_that_falls_with_its_bits(experts):
    errors = distortion.errors(distortion.whole(experts, IMPORTANCE), threads=2)
    assert set(errors) == {t.name for t in distortion.CANDIDATES}
    assert errors["f16"] < 1e-6
    rates = [errors[f"tcq{rate}"] for rate in range(1, 6)]
    assert all(after < 0.4 * before for before, after in pairwise(rates))
    without = distortion.errors(distortion.whole(experts, None), threads=2)
    assert set(errors) - set(without) == {t.name for t in types.ALL.values() if t.needs_imatrix}


def test_rows_that_blocks_do_not_divide():
    tensor = LazyTensor("x.weight", (4, 96), "F32", lambda first, last: VALUES[first:last, :96].copy())
    errors = distortion.errors(distortion.whole(tensor, None), threads=1)
    assert "q8_0" in errors
    assert not {"q4_k", "tcq3", "tcq3_64"} & set(errors)


def test_a_slot_holds_an_outlier():
    row = VALUES[0].copy()
    row[77] = 40.0
    assert distortion.slot_holds(types.get("tcq2"), row, None, 77)
    assert distortion.slot_holds(types.get("tcq2_64"), row, None, 77)
    assert not distortion.slot_holds(types.get("tcq2"), row, None, 78)
    assert not distortion.slot_holds(types.get("q4_k"), row, None, 77)
