"""The impurity of a base's log-probabilities against its definition, and against KL divergences of disturbed logits."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from gguf_golf.evaluate.divergence import Scorer
from gguf_golf.evaluate.impurity import of_chunk
from gguf_golf.evaluate.logits_file import LogitsFile, LogitsShape, LogitsWriter

SHAPE = LogitsShape(n_ctx=512, n_vocab=1001, n_chunk=2)


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """f32 [chunks, n_scored, n_vocab]: a chunk of which the model is unsure, and one of which it is sure."""
    rng = np.random.default_rng(0)
    spread = np.array([1.5, 4.0])[:, None, None]
    return (rng.standard_normal((2, SHAPE.n_scored, SHAPE.n_vocab)) * spread).astype(np.float32)


@pytest.fixture(scope="module")
def file(logits: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> LogitsFile:
    path: Path = tmp_path_factory.mktemp("impurity") / "base.logits"
    tokens = np.zeros((SHAPE.n_chunk, SHAPE.n_ctx), np.int32)
    writer = LogitsWriter(path, SHAPE, tokens)
    with Scorer(1) as scorer:
        for chunk in logits:
            writer.append(scorer.encode(chunk, tokens[0, : SHAPE.n_scored])[0])
    writer.finish()
    writer.close()
    return LogitsFile(path)


def test_impurity_is_its_definition(file: LogitsFile, logits: np.ndarray) -> None:
    for chunk in range(SHAPE.n_chunk):
        expected = 1 - np.square(softmax(logits[chunk].astype(np.float64), 1)).sum(1).mean()
        assert of_chunk(file, chunk) == pytest.approx(expected, rel=1e-3)


def test_divergence_by_independent_small_errors_is_proportional_to_impurity(
    file: LogitsFile, logits: np.ndarray
) -> None:
    errors = 0.05 * np.random.default_rng(1).standard_normal(logits.shape)
    before, after = log_softmax(logits.astype(np.float64), 2), log_softmax(logits + errors, 2)
    kld = (np.exp(before) * (before - after)).sum(2).mean(1)
    impurity = [of_chunk(file, chunk) for chunk in range(SHAPE.n_chunk)]
    assert impurity[0] > 1.3 * impurity[1]
    assert kld[0] / kld[1] == pytest.approx(impurity[0] / impurity[1], rel=0.1)
