"""Rounding of activations: against ggml's own, and what it does to the output of a layer."""

import platform

import numpy as np
import pytest

from gguf_golf.bench import graph
from gguf_golf.bench.graph import libcpu
from gguf_golf.runtime import ggml
from gguf_golf.runtime.abi import InitParams
from gguf_golf.sensitivity.distortion import CANDIDATES
from gguf_golf.sensitivity.rounding import SCALE_SPANS, rounded

RNG = np.random.default_rng(11)
Q8_0, Q8_1, Q8_K, TCQ5_64 = 8, 9, 15, 122


def products(blocks, x):
    """What ggml makes of a TCQ5_64 matrix and the rows of x; shape (rows of x, rows of the matrix)."""
    rows, row = len(blocks), x.shape[1]
    context = libcpu().ggml_init(InitParams(16 << 20, None, False))
    try:
        matrix = libcpu().ggml_new_tensor_2d(context, TCQ5_64, row, rows)
        columns = libcpu().ggml_new_tensor_2d(context, graph.F32, row, len(x))
        graph.bytes_of(matrix, blocks.nbytes)[:] = blocks.ravel()
        graph.bytes_of(columns, x.nbytes)[:] = np.ascontiguousarray(x).view(np.uint8).ravel()
        product = libcpu().ggml_mul_mat(context, matrix, columns)
        nodes = libcpu().ggml_new_graph(context)
        libcpu().ggml_build_forward_expand(nodes, product)
        graph.compute(nodes, 1)
        return graph.bytes_of(product, 4 * rows * len(x)).view(np.float32).reshape(len(x), rows).copy()
    finally:
        libcpu().ggml_free(context)


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
        if quant_type.activations == "q8_64":  # our products' own, which ggml does not know
            continue
        theirs = libcpu().ggml_get_type_traits_cpu(quant_type.id).contents.vec_dot_type
        assert quant_type.activations == names.get(theirs), quant_type.name


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Arm's single column goes through Q8_0")
@pytest.mark.parametrize("columns", [1, 8])
def test_products_with_blocks_of_64_round_in_spans_of_64(x, columns):
    """Which span of activations fits what comes out of ggml best."""
    weights = RNG.standard_normal((32, 512)).astype(np.float32)
    blocks = ggml.quantize(TCQ5_64, weights)
    exact, got = ggml.dequantize(TCQ5_64, blocks, *weights.shape), products(blocks, x[:columns])
    distance = {name: np.square(rounded(x[:columns], span) @ exact.T - got).sum() for name, span in SCALE_SPANS.items()}
    assert min(distance, key=distance.__getitem__) == "q8_64"
    assert distance["q8_64"] < 0.01 * distance["q8_0"]
