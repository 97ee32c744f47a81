"""The measure of error against plain NumPy, and sampling."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import Guide
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.formats import types
from gguf_golf.models import LazyTensor
from gguf_golf.sensitivity import distortion
from gguf_golf.sensitivity.distortion import Rows

NAME = "blk.0.ffn_up_exps.weight"
ENCODER = CpuEncoder(2)
RNG = np.random.default_rng(5)
VALUES = RNG.normal(size=(64, 256)).astype(np.float32)
IMPORTANCE = RNG.uniform(0.1, 4, (2, 256)).astype(np.float32)


def guide_of(importance):
    """A guide that knows this importance, f32 [n_experts, k], of the experts' inputs."""
    return Guide(Imatrix({NAME: ImatrixEntry(importance, np.ones(len(importance), np.int64))}))


GUIDE, NOTHING_KNOWN = guide_of(IMPORTANCE), Guide()


@pytest.fixture
def experts():
    """Two experts of 32 rows, each with an importance of its own."""
    return LazyTensor(NAME, (2, 32, 256), "F32", lambda first, last: VALUES[first:last].copy())


def test_relative_error_is_the_formula(experts):
    rows = distortion.whole(experts, GUIDE)
    new = VALUES + RNG.normal(scale=0.1, size=VALUES.shape).astype(np.float32)
    weight = np.repeat(IMPORTANCE, 32, axis=0).astype(np.float64)
    expected = (weight * (VALUES.astype(np.float64) - new) ** 2).sum() / (weight * VALUES.astype(np.float64) ** 2).sum()
    assert distortion.relative_error(rows, new) == pytest.approx(expected, rel=1e-5)
    uniform = distortion.relative_error(distortion.whole(experts, NOTHING_KNOWN), new)
    assert uniform == pytest.approx(((VALUES - new) ** 2).sum() / (VALUES**2).sum(), rel=1e-5)


def test_samples_are_spaced_evenly(experts):
    rows = distortion.sample(experts, GUIDE, weights=8 * 256)
    assert rows.values.shape == (8, 256)
    assert np.array_equal(rows.values, VALUES[4::8])
    assert rows.expert.tolist() == [0] * 4 + [1] * 4
    assert np.array_equal(distortion.sample(experts, NOTHING_KNOWN).values, VALUES)


def test_each_expert_is_coded_with_its_own_importance(experts):
    """Coding under the right importance leaves less weighted error than under the other expert's."""
    rows = distortion.whole(experts, GUIDE)
    right = distortion.relative_error(rows, distortion.decoded(rows, types.get("tcq2"), ENCODER))
    swapped = replace(rows, guide=guide_of(IMPORTANCE[::-1]))
    wrong = distortion.relative_error(rows, distortion.decoded(swapped, types.get("tcq2"), ENCODER))
    assert right < 0.95 * wrong


def test_every_type_has_an_error_that_falls_with_its_bits(experts):
    errors = distortion.errors(distortion.whole(experts, GUIDE), ENCODER)
    assert set(errors) == {t.name for t in distortion.CANDIDATES}
    assert errors["f16"] < 1e-6
    rates = [errors[f"tcq{rate}"] for rate in range(1, 6)]
    assert all(after < 0.4 * before for before, after in pairwise(rates))
    without = distortion.errors(distortion.whole(experts, NOTHING_KNOWN), ENCODER)
    assert set(errors) - set(without) == {t.name for t in types.ALL.values() if t.needs_imatrix}


def test_rows_that_blocks_do_not_divide():
    tensor = LazyTensor("x.weight", (4, 96), "F32", lambda first, last: VALUES[first:last, :96].copy())
    errors = distortion.errors(distortion.whole(tensor, NOTHING_KNOWN), ENCODER)
    assert "q8_0" in errors
    assert not {"q4_k", "tcq3", "tcq3_64"} & set(errors)


def test_a_slot_holds_an_outlier():
    row = VALUES[0].copy()
    row[77] = 40.0
    rows = Rows(NAME, row[None], np.zeros(1, np.int64), 1, NOTHING_KNOWN)

    def in_slot(name, channel):
        return distortion.slot_holds(rows, types.get(name), channel, ENCODER)

    assert in_slot("tcq2", 77) and in_slot("tcq2_64", 77)
    assert not in_slot("tcq2", 78)
    assert not in_slot("q4_k", 77)
