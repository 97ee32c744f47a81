"""Varentropy of a base's log-probabilities against its definition, and against divergences of disturbed logits."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from gguf_golf.evaluate.divergence import Scorer
from gguf_golf.evaluate.logits_file import LogitsFile, LogitsShape, LogitsWriter
from gguf_golf.evaluate.varentropy import of_chunk

SHAPE = LogitsShape(n_ctx=512, n_vocab=1001, n_chunk=2)


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """f32 [chunks, n_scored, n_vocab]: a chunk of which the model is unsure, and one of which it is sure."""
    rng = np.random.default_rng(0)
    spread = np.array([1.5, 4.0])[:, None, None]
    return (rng.standard_normal((2, SHAPE.n_scored, SHAPE.n_vocab)) * spread).astype(np.float32)


@pytest.fixture(scope="module")
def file(logits: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> LogitsFile:
    path: Path = tmp_path_factory.mktemp("varentropy") / "base.logits"
    tokens = np.zeros((SHAPE.n_chunk, SHAPE.n_ctx), np.int32)
    writer = LogitsWriter(path, SHAPE, tokens)
    with Scorer(1) as scorer:
        for chunk in logits:
            writer.append(scorer.encode(chunk, tokens[0, : SHAPE.n_scored])[0])
    writer.finish()
    writer.close()
    return LogitsFile(path)


def test_varentropy_is_its_definition(file: LogitsFile, logits: np.ndarray) -> None:
    for chunk in range(SHAPE.n_chunk):
        log_p = log_softmax(logits[chunk].astype(np.float64), 1)
        mean = (np.exp(log_p) * log_p).sum(1, keepdims=True)
        expected = (np.exp(log_p) * np.square(log_p - mean)).sum(1).mean()
        assert of_chunk(file, chunk) == pytest.approx(expected, rel=1e-2)  # 16 bits, and what is below e^-16


def test_divergence_by_errors_in_proportion_to_the_logits_is_proportional_to_varentropy(
    file: LogitsFile, logits: np.ndarray
) -> None:
    before, after = log_softmax(logits.astype(np.float64), 2), log_softmax(1.01 * logits.astype(np.float64), 2)
    kld = (np.exp(before) * (before - after)).sum(2).mean(1)
    found = [of_chunk(file, chunk) for chunk in range(SHAPE.n_chunk)]
    assert found[0] != pytest.approx(found[1], rel=0.3)
    assert kld == pytest.approx([0.01**2 / 2 * value for value in found], rel=0.02)
