"""Rounding of activations: against ggml's own, and what it does to the output of a layer."""

import numpy as np
import pytest

from gguf_golf.bench.graph import libcpu
from gguf_golf.calibrate.hessian import Rows
from gguf_golf.runtime import ggml
from gguf_golf.sensitivity.distortion import CANDIDATES
from gguf_golf.sensitivity.rounding import SCALE_SPANS, Rounding, rounded

RNG = np.random.default_rng(11)
Q8_0, Q8_1, Q8_K = 8, 9, 15


@pytest.fixture
def x():
    """48 activations vectors of 512 channels, of which the fourth is massive."""
    x = RNG.standard_normal((48, 512), np.float32)
    x[:, 3] *= 40
    return x


def test_ggml_rounds_so(x):
    row = x[:1].copy()
    data = np.empty((2, 292), np.uint8)  # block_q8_K: f32 scale, 256 numbers, 16 sums
    libcpu().ggml_get_type_traits_cpu(Q8_K).contents.from_float(row.ctypes.data, data.ctypes.data, row.size)
    theirs = data[:, 4:260].view(np.int8) * data[:, :4].copy().view(np.float32)
    assert rounded(row, SCALE_SPANS["q8_k"]).ravel() == pytest.approx(theirs.ravel(), rel=1e-5, abs=1e-6)
    theirs = ggml.dequantize(Q8_0, ggml.quantize(Q8_0, x), *x.shape)
    assert rounded(x, SCALE_SPANS["q8_0"]) == pytest.approx(theirs, rel=1e-3)  # its scales are F16


def test_each_type_meets_the_activations_that_ggml_says():
    names = {Q8_0: "q8_0", Q8_1: "q8_0", Q8_K: "q8_k"}
    for quant_type in CANDIDATES:
        theirs = libcpu().ggml_get_type_traits_cpu(quant_type.id).contents.vec_dot_type
        assert quant_type.activations == names.get(theirs), quant_type.name


def test_the_error_is_that_of_the_layers_output(x):
    weights = RNG.standard_normal((256, 512), np.float32)
    rounding = Rounding()
    for part in (x[:16], x[16:]):
        rounding.observe(Rows("w", "x", 1, 0, part))
    errors = rounding.errors("w", weights)
    for activation, span in SCALE_SPANS.items():
        exact, moved = x @ weights.T, rounded(x, span) @ weights.T
        assert errors[activation] == pytest.approx(np.square(moved - exact).sum() / np.square(exact).sum(), rel=0.2)
    assert errors["q8_k"] > 3 * errors["q8_0"], "beside a massive channel 255 suffer, or 31"


def test_experts_have_inputs_of_their_own(x):
    weights = RNG.standard_normal((64, 512), np.float32)
    both, one = Rounding(), Rounding()
    both.observe(Rows("w", "x", 2, 1, x))
    one.observe(Rows("w", "x", 1, 0, x))
    assert both.errors("w", weights) == pytest.approx(one.errors("w", weights[32:]))


def test_what_is_never_multiplied_or_does_not_divide(x):
    rounding = Rounding()
    assert rounding.errors("token_embd.weight", np.ones((4, 512), np.float32)) == {}
    rounding.observe(Rows("w", "x", 1, 0, x[:, :64]))
    assert set(rounding.errors("w", np.ones((4, 64), np.float32))) == {"q8_0"}
