"""Stock types encoded again: the bytes mean what is computed with, and they are as near as ggml's or nearer."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [tune] extra")

import torch

from gguf_golf.formats import quant_types
from gguf_golf.runtime import ggml
from gguf_golf.tune.refit import CODEBOOKS, REFITS

N, K = 24, 512


def error(stored: np.ndarray, rows: np.ndarray, importance: np.ndarray) -> float:
    return float((importance * np.square(stored.astype(np.float64) - rows)).sum())


def refitted(name: str, data: np.ndarray, rows: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The new bytes, and the weights [n, K] that they mean."""
    blocks = torch.from_numpy(data).view(len(rows) * K // 256, -1)
    weights = torch.from_numpy(importance).repeat(len(rows), 1).view(-1, 256)
    new, stored = REFITS[name].blocks(blocks, torch.from_numpy(rows).view(-1, 256), weights)
    return new.numpy(), stored.view(-1, K).numpy()


@pytest.mark.parametrize("name", REFITS)
def test_bytes_mean_what_is_computed_with_and_lie_nearer_than_ggml_s(name: str) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_t(5, (N, K)).astype(np.float32)
    importance = rng.gamma(2.0, 1.0, K).astype(np.float32)
    quant_type = quant_types.get(name)
    data = ggml.quantize(quant_type.id, rows, importance, threads=1)
    before = error(ggml.dequantize(quant_type.id, data, N, K, 1), rows, importance)
    new, weights = refitted(name, data, rows, importance)
    stored = ggml.dequantize(quant_type.id, new, N, K, 1)
    np.testing.assert_allclose(weights, stored, rtol=1e-6, atol=1e-7)
    assert error(stored, rows, importance) < before


@pytest.mark.parametrize("name", REFITS)
def test_rows_that_moved_are_followed(name: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((N, K)).astype(np.float32)
    quant_type = quant_types.get(name)
    data = ggml.quantize(quant_type.id, rows, np.ones(K, np.float32), threads=1)
    moved = rows + 0.3 * rng.standard_normal((N, K)).astype(np.float32)
    anew = ggml.dequantize(quant_type.id, ggml.quantize(quant_type.id, moved, np.ones(K, np.float32), 1), N, K, 1)
    for _ in range(3):
        data, weights = refitted(name, data, moved, np.ones(K, np.float32))
    assert error(weights, moved, np.ones(K)) < 1.15 * error(anew, moved, np.ones(K))


@pytest.mark.parametrize("name", REFITS)
def test_rows_of_zeros_stay_zeros(name: str) -> None:
    quant_type = quant_types.get(name)
    data = ggml.quantize(quant_type.id, np.zeros((2, K), np.float32), np.ones(K, np.float32), threads=1)
    _, weights = refitted(name, data, np.zeros((2, K), np.float32), np.ones(K, np.float32))
    assert not weights.any()


@pytest.mark.parametrize("name", CODEBOOKS)
def test_from_nothing_it_is_as_near_as_ggml(name: str) -> None:
    rng = np.random.default_rng(2)
    rows = (rng.standard_t(5, (N, K)) * 0.02).astype(np.float32)
    importance = rng.gamma(2.0, 1.0, K).astype(np.float32)
    quant_type = quant_types.get(name)
    blocks = torch.from_numpy(rows).view(-1, 256)
    ours = CODEBOOKS[name].anew(blocks, torch.from_numpy(importance).repeat(N, 1).view(-1, 256))
    theirs = ggml.quantize(quant_type.id, rows, importance, threads=1)
    errors = [error(ggml.dequantize(quant_type.id, data, N, K, 1), rows, importance) for data in (ours.numpy(), theirs)]
    assert errors[0] < errors[1]
