"""The ctypes wrappers, against gguf-py's NumPy codecs (which share no code with ggml)."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as T
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.runtime import ggml

# what gguf-py can decode and ggml encodes
DECODED = [T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
DECODED += [T.TQ1_0, T.TQ2_0, T.MXFP4, T.IQ4_NL, T.IQ4_XS, T.IQ3_S, T.IQ3_XXS, T.IQ2_S, T.IQ2_XS, T.IQ2_XXS]
DECODED += [T.IQ1_S, T.IQ1_M]

N, K = 6, 512


def rows(n: int = N, k: int = K) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((n, k), dtype=np.float32)


def importance(k: int = K) -> NDArray[np.float32]:
    return np.random.default_rng(2).random(k, dtype=np.float32) + 0.1


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_dequantize_equals_gguf_py(kind: T) -> None:
    data = ggml.quantize(kind, rows(), importance())
    expected = gguf.dequantize(data, kind)
    # a fused multiply-add rounds once where NumPy rounds twice
    np.testing.assert_allclose(ggml.dequantize(kind, data, N, K), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [T.F32, T.F16, T.BF16, T.Q4_0, T.Q8_0], ids=lambda kind: kind.name)
def test_quantize_equals_gguf_py(kind: T) -> None:
    np.testing.assert_array_equal(ggml.quantize(kind, rows()), gguf.quantize(rows(), kind).view(np.uint8))


def test_f32_survives_as_it_is() -> None:
    np.testing.assert_array_equal(ggml.dequantize(T.F32, ggml.quantize(T.F32, rows()), N, K), rows())


@pytest.mark.parametrize("kind", [T.Q4_K, T.IQ3_S, 114], ids=str)
def test_threads_do_not_change_the_result(kind: int) -> None:
    many = rows(600, 256)  # three slabs, the last one short
    alone = ggml.quantize(kind, many, importance(256), threads=1)
    np.testing.assert_array_equal(ggml.quantize(kind, many, importance(256), threads=4), alone)
    by_row = [ggml.quantize(kind, many[i : i + 1], importance(256)) for i in (0, 255, 256, 599)]
    np.testing.assert_array_equal(np.concatenate(by_row), alone[[0, 255, 256, 599]])
    one = ggml.dequantize(kind, alone, 600, 256, threads=1)
    np.testing.assert_array_equal(ggml.dequantize(kind, alone, 600, 256, threads=4), one)


def test_importance_shifts_the_error_to_columns_that_do_not_matter() -> None:
    weights = np.where(np.arange(K) % 2, 100.0, 0.01).astype(np.float32)
    errors = [
        (ggml.dequantize(T.Q2_K, ggml.quantize(T.Q2_K, rows(), given), N, K) - rows()) ** 2 @ weights
        for given in (weights, np.ones(K, np.float32))
    ]
    assert errors[0].sum() < errors[1].sum()


@pytest.mark.parametrize("kind", [T.IQ1_S, T.IQ2_XS, T.IQ3_XXS, T.Q2_K, T.Q5_K], ids=lambda kind: kind.name)
@pytest.mark.parametrize("exponent", [-120, -90, 90, 120])
def test_only_ratios_of_importances_matter(kind: T, exponent: int) -> None:
    scaled = ggml.quantize(kind, rows(), np.ldexp(importance(), exponent))
    np.testing.assert_array_equal(scaled, ggml.quantize(kind, rows(), importance()))


def test_columns_of_a_wider_matrix_are_copied_not_misread() -> None:
    wide = rows(N, 2 * K)
    np.testing.assert_array_equal(ggml.quantize(T.Q8_0, wide[:, ::2]), ggml.quantize(T.Q8_0, wide[:, ::2].copy()))


def test_no_rows() -> None:
    assert ggml.quantize(T.Q8_0, rows(0)).shape == (0, K // 32 * 34)
    assert ggml.dequantize(T.Q8_0, np.empty(0, np.uint8), 0, K).shape == (0, K)


def test_what_cannot_be_done_is_refused_and_not_aborted() -> None:
    with pytest.raises(InputError, match="rows of 320 weights cannot be stored as q4_k, in blocks of 256"):
        ggml.quantize(T.Q4_K, rows(1, 320))
    with pytest.raises(InputError, match="iq2_xxs cannot be made without an importance matrix"):
        ggml.quantize(T.IQ2_XXS, rows())
    with pytest.raises(InputError, match=r"importance has shape \(3,\), and the rows have 512 columns"):
        ggml.quantize(T.Q4_K, rows(), np.ones(3, np.float32))
    with pytest.raises(InputError, match="expected a matrix"):
        ggml.quantize(T.Q4_K, rows()[0])
    for kind in (4, 1000, T.Q8_K, T.Q8_1):  # Q8_K and Q8_1 are what ggml rounds activations to
        with pytest.raises(InputError, match=f"there is no tensor type.*{int(kind)}"):
            ggml.quantize(kind, rows())
    with pytest.raises(InputError, match="i32 is not a type for weights"):
        ggml.quantize(T.I32, rows())
    with pytest.raises(InputError, match="6 rows of 512 q8_0 weights are 3264 bytes, not 3263"):
        ggml.dequantize(T.Q8_0, np.zeros(3263, np.uint8), N, K)
    with pytest.raises(InputError, match="i32 cannot be dequantized"):
        ggml.dequantize(T.I32, np.zeros(4 * N * K, np.uint8), N, K)
