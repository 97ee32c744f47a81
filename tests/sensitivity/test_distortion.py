"""The measure of error against plain NumPy, and sampling."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from gguf_golf.calibrate import hessian
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import Guide
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.formats import quant_types
from gguf_golf.models import LazyTensor
from gguf_golf.sensitivity import distortion
from gguf_golf.sensitivity.distortion import Judge, Rows
from gguf_golf.sensitivity.layer_inputs import LayerInputs
from gguf_golf.sensitivity.rounding import SCALE_SPANS, rounded

NAME = "blk.0.ffn_up_exps.weight"
ENCODER = CpuEncoder(2)
RNG = np.random.default_rng(5)
VALUES = RNG.normal(size=(64, 256)).astype(np.float32)
IMPORTANCE = RNG.uniform(0.1, 4, (2, 256)).astype(np.float32)


def guide_of(importance):
    """A guide that knows this importance, f32 [n_experts, k], of the experts' inputs, from many tokens."""
    counts = np.full(len(importance), 10**9)  # so that none is shrunk towards its siblings'
    return Guide(Imatrix({NAME: ImatrixEntry(importance * np.float64(10**9), counts)}))


GUIDE, NOTHING_KNOWN = guide_of(IMPORTANCE), Guide()


def errors_of(rows):
    return distortion.errors(rows, ENCODER, Judge(rows), distortion.CANDIDATES)


@pytest.fixture
def experts():
    """Two experts of 32 rows, each with an importance of its own."""
    return LazyTensor(NAME, (2, 32, 256), "F32", lambda first, last: VALUES[first:last].copy())


def test_relative_error_is_the_formula(experts):
    rows = distortion.whole(experts, GUIDE)
    new = VALUES + RNG.normal(scale=0.1, size=VALUES.shape).astype(np.float32)
    weight = np.repeat(IMPORTANCE, 32, axis=0).astype(np.float64)
    expected = (weight * (VALUES.astype(np.float64) - new) ** 2).sum() / (weight * VALUES.astype(np.float64) ** 2).sum()
    assert Judge(rows).error(new) == pytest.approx(expected, rel=1e-5)
    uniform = Judge(distortion.whole(experts, NOTHING_KNOWN)).error(new)
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
    right = Judge(rows).error(distortion.decoded(rows, quant_types.get("tcq2"), ENCODER))
    swapped = replace(rows, guide=guide_of(IMPORTANCE[::-1]))
    wrong = Judge(rows).error(distortion.decoded(swapped, quant_types.get("tcq2"), ENCODER))
    assert right < 0.95 * wrong


def test_every_type_has_an_error_that_falls_with_its_bits(experts):
    errors = errors_of(distortion.whole(experts, GUIDE))
    assert set(errors) == {t.name for t in distortion.CANDIDATES}
    assert errors["f16"] < 1e-6
    rates = [errors[f"tcq{rate}"] for rate in range(1, 6)]
    assert all(after < 0.4 * before for before, after in pairwise(rates))
    without = errors_of(distortion.whole(experts, NOTHING_KNOWN))
    assert set(errors) - set(without) == {t.name for t in quant_types.ALL.values() if t.needs_imatrix}


def test_rows_that_blocks_do_not_divide():
    tensor = LazyTensor("x.weight", (4, 96), "F32", lambda first, last: VALUES[first:last, :96].copy())
    errors = errors_of(distortion.whole(tensor, NOTHING_KNOWN))
    assert "q8_0" in errors
    assert not {"q4_k", "tcq3", "tcq3_64"} & set(errors)


def test_a_slot_holds_an_outlier():
    row = VALUES[0].copy()
    row[77] = 40.0
    rows = Rows(NAME, row[None], np.zeros(1, np.int64), 1, NOTHING_KNOWN)

    def in_slot(name, channel):
        return distortion.slot_holds(rows, quant_types.get(name), channel, ENCODER)

    assert in_slot("tcq2", 77) and in_slot("tcq2_64", 77)
    assert not in_slot("tcq2", 78)
    assert not in_slot("q4_k", 77)


@pytest.fixture
def inputs(tmp_path):
    """Correlated inputs of both experts, the first chosen three times as often; every second one is kept."""
    with LayerInputs(tmp_path / "inputs", stride=2) as inputs:
        mixed = RNG.normal(size=(256, 256)).astype(np.float32)
        for expert, n in ((0, 600), (1, 200)):
            x = RNG.normal(size=(n, 256)).astype(np.float32) @ mixed
            x[:, 3] *= 20
            for part in np.array_split(x, 3):
                inputs.observe(hessian.Rows(NAME, "input", 2, expert, part))
        yield inputs


def test_errors_are_judged_by_the_layers_own_inputs(experts, inputs):
    rows = distortion.whole(experts, GUIDE)
    new = VALUES + RNG.normal(scale=0.1, size=VALUES.shape).astype(np.float32)
    moved = energy = 0.0
    for expert, x in inputs.experts(NAME):
        part = slice(32 * expert, 32 * expert + 32)
        moved += np.square((VALUES[part] - new[part]).astype(np.float64) @ x.T).sum()
        energy += np.square(VALUES[part].astype(np.float64) @ x.T).sum()
    assert Judge(rows, inputs).error(new) == pytest.approx(moved / energy, rel=1e-4)
    assert Judge(rows, inputs).error(new) != pytest.approx(Judge(rows).error(new), rel=0.05)


def test_rounding_of_inputs_is_judged_likewise(experts, inputs):
    rounding = Judge(distortion.whole(experts, GUIDE), inputs).rounding()
    assert set(rounding) == set(SCALE_SPANS)
    for activation, span in SCALE_SPANS.items():
        moved = energy = 0.0
        for expert, x in inputs.experts(NAME):
            part = VALUES[32 * expert : 32 * expert + 32].astype(np.float64)
            moved += np.square((rounded(x, span) - x) @ part.T).sum()
            energy += np.square(x @ part.T).sum()
        assert rounding[activation] == pytest.approx(moved / energy, rel=1e-3)
    assert rounding["q8_k"] > rounding["q8_64"] > rounding["q8_0"], "beside a massive channel 255 suffer, or 31"
    assert Judge(distortion.whole(experts, GUIDE)).rounding() == {}


def test_a_rarely_chosen_expert_counts_by_how_rarely(experts, inputs):
    """The same error costs three times as much in the expert that is chosen three times as often."""
    twice = np.concatenate([VALUES[:32], VALUES[:32]])
    judge = Judge(replace(distortion.whole(experts, GUIDE), values=twice), inputs)
    first, second = twice.copy(), twice.copy()
    first[:32] *= 0.9
    second[32:] *= 0.9
    assert judge.error(first) / judge.error(second) == pytest.approx(3, rel=0.3)
    assert judge.error(first) + judge.error(second) == pytest.approx(0.01, rel=1e-3)


def test_weights_that_share_an_input_share_its_rows(tmp_path):
    x = RNG.normal(size=(64, 256)).astype(np.float32)
    with LayerInputs(tmp_path / "inputs", stride=1) as inputs:
        for name in ("q", "k", "v"):
            inputs.observe(hessian.Rows(name, "norm", 1, 0, x))
        (_, seen), *others = inputs.experts("v")
        assert np.array_equal(seen, x) and not others
        assert (tmp_path / "inputs").stat().st_size == x.nbytes
    assert not (tmp_path / "inputs").exists()
