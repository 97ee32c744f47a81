"""Error feedback against GPTQ's own formulas and against what it is for: less error at the layer's output."""

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.encode import feedback
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import quant_types, tcq
from gguf_golf.runtime import ggml


def correlated_hessian(k: int, seed: int = 0) -> NDArray[np.float64]:
    """E[x x^T] of inputs with strong common factors and channels of very different strength."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4 * k, k // 8)) @ rng.standard_normal((k // 8, k)) + rng.standard_normal((4 * k, k))
    x *= rng.gamma(1.0, 1.0, k) + 0.1
    return x.T @ x / len(x)


def output_error(w: NDArray[np.float32], q: NDArray[np.float32], hessian: NDArray[np.float64]) -> float:
    """Sum of squared output errors over the outputs' energy."""
    e = w.astype(float) - q
    return float(np.sum((e @ hessian) * e) / np.sum((w @ hessian) * w))


def decode(name: str, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of bytes through the NumPy decoder."""
    fmt = quant_types.TCQ_FORMATS[name]
    return tcq.dequantize(fmt, data.reshape(-1, fmt.type_size)).reshape(len(data), -1)


@pytest.mark.parametrize(("block_size", "k"), [(64, 192), (256, 512)])
def test_a_factored_hessian_equals_the_inverse(block_size: int, k: int) -> None:
    """The factored form equals GPTQ's recursion on an explicit inverse."""
    hessian = correlated_hessian(k)
    ours = feedback.factor_hessian(hessian, block_size)
    order = np.concatenate([first + tcq.chain_order(block_size) for first in range(0, k, block_size)])
    damped = hessian + feedback.DAMPING * np.mean(np.diag(hessian)) * np.eye(k)
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    for a in range(0, k, feedback.SECTION):
        b, end = a + feedback.SECTION, a - a % block_size + block_size
        seen = min(b + feedback.LOOK_AHEAD, end) - a
        weights = np.diag(np.linalg.inv(inverse[:seen, :seen]))
        np.testing.assert_allclose(ours.section_weights[a // feedback.SECTION, :seen], weights, rtol=1e-4)
        assert not ours.section_weights[a // feedback.SECTION, seen:].any()
        if a % block_size == 0:
            cost = np.diag(np.linalg.inv(inverse[:block_size, :block_size]))
            np.testing.assert_allclose(ours.block_weights[a:end], cost, rtol=1e-4)
        n = b - a
        answer = np.linalg.inv(inverse[:n, :n]) @ inverse[:n, n:]
        np.testing.assert_allclose(ours.propagation[a:b, b:], answer, rtol=1e-3, atol=1e-5)
        assert not ours.propagation[a:b, :b].any()
        inverse = inverse[n:, n:] - inverse[n:, :n] @ answer


@pytest.mark.parametrize("name", ["tcq2", "tcq3", "tcq2_64", "tcq3_64"])
def test_output_error_falls(name: str) -> None:
    k = 512
    hessian = correlated_hessian(k)
    rows = np.random.default_rng(1).standard_normal((24, k)).astype(np.float32)
    kind = quant_types.get(name)
    plain = decode(name, ggml.quantize(kind.id, rows, np.diag(hessian).astype(np.float32), 2))
    factored = feedback.factor_hessian(hessian, kind.block_size)
    fed = decode(name, feedback.encode(kind, rows, factored, 2))
    assert output_error(rows, fed, hessian) < 0.75 * output_error(rows, plain, hessian)


def test_uncorrelated_inputs_leave_nothing_to_feed_back() -> None:
    rows = np.random.default_rng(2).standard_normal((16, 256)).astype(np.float32)
    kind = quant_types.get("tcq3")
    plain = decode("tcq3", ggml.quantize(kind.id, rows, None, 2))
    fed = decode("tcq3", feedback.encode(kind, rows, feedback.factor_hessian(np.eye(256), 256)))
    errors = [np.sum(np.square(rows - q)) for q in (plain, fed)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


def test_threads_and_zero_rows() -> None:
    rows = np.random.default_rng(3).standard_normal((40, 256)).astype(np.float32)
    rows[7] = 0
    factored = feedback.factor_hessian(correlated_hessian(256), 64)
    one = feedback.encode(quant_types.get("tcq2_64"), rows, factored, 1)
    np.testing.assert_array_equal(one, feedback.encode(quant_types.get("tcq2_64"), rows, factored, 3))
    assert not decode("tcq2_64", one)[7].any()


def test_refusals() -> None:
    factored = feedback.factor_hessian(np.zeros((256, 256)), 256)
    with pytest.raises(InputError, match="only TCQ types"):
        feedback.encode(quant_types.get("q4_0"), np.zeros((1, 256), np.float32), factored)
    with pytest.raises(InputError, match="256 columns"):
        feedback.encode(quant_types.get("tcq3"), np.zeros((1, 512), np.float32), factored)
    with pytest.raises(DataError, match="cannot be factored"):
        feedback.factor_hessian(np.full((256, 256), np.nan), 256)
