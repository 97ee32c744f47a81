"""The file of base log-probabilities: round trip, resumption, refusals (exchange with llama.cpp: test_evaluate)."""

from pathlib import Path

import numpy as np
import pytest

from gguf_golf.errors import InputError
from gguf_golf.evaluate.divergence import Scorer
from gguf_golf.evaluate.logits_file import LogitsFile, LogitsShape, LogitsWriter

SHAPE = LogitsShape(n_ctx=16, n_vocab=51, n_chunk=3)  # an odd vocabulary: rows are padded


def chunks() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, SHAPE.n_vocab, (SHAPE.n_chunk, SHAPE.n_ctx)).astype(np.int32)
    rows, nlls = [], []
    with Scorer(1) as scorer:
        for chunk in tokens:
            logits = rng.standard_normal((SHAPE.n_scored, SHAPE.n_vocab)).astype(np.float32)
            row, nll = scorer.encode(logits, chunk[SHAPE.first + 1 :])
            rows.append(row)
            nlls.append(nll)
    return tokens, rows, nlls


def test_round_trip(tmp_path: Path) -> None:
    tokens, rows, nlls = chunks()
    writer = LogitsWriter(tmp_path / "l", SHAPE, tokens)
    for row in rows:
        writer.append(row)
    assert not (tmp_path / "l").exists()
    writer.finish()
    back = LogitsFile(tmp_path / "l")
    assert back.shape == SHAPE
    np.testing.assert_array_equal(back.tokens, tokens)
    for chunk in range(SHAPE.n_chunk):
        np.testing.assert_array_equal(back.rows(chunk), rows[chunk])
        np.testing.assert_allclose(back.target_nll(chunk), nlls[chunk], atol=1e-4)


def test_an_interrupted_file_is_continued_after_its_last_whole_chunk(tmp_path: Path) -> None:
    tokens, rows, _ = chunks()
    writer = LogitsWriter(tmp_path / "l", SHAPE, tokens)
    writer.append(rows[0])
    writer.append(rows[1])
    writer.close()
    partial = tmp_path / "l.partial"
    partial.write_bytes(partial.read_bytes()[:-5])
    writer = LogitsWriter(tmp_path / "l", SHAPE, tokens, n_trusted=3)
    assert writer.n_done == 1
    for row in rows[1:]:
        writer.append(row)
    writer.finish()
    np.testing.assert_array_equal(LogitsFile(tmp_path / "l").rows(2), rows[2])


def test_a_partial_file_of_other_tokens_is_begun_anew(tmp_path: Path) -> None:
    tokens, rows, _ = chunks()
    writer = LogitsWriter(tmp_path / "l", SHAPE, tokens)
    writer.append(rows[0])
    writer.close()
    other = LogitsWriter(tmp_path / "l", SHAPE, tokens[::-1], n_trusted=3)
    assert other.n_done == 0
    other.close()


@pytest.mark.parametrize("damage", [lambda b: b"_logitz_" + b[8:], lambda b: b[:-2], lambda b: b[:14]])
def test_a_foreign_or_truncated_file_is_refused(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    tokens, rows, _ = chunks()
    writer = LogitsWriter(tmp_path / "l", SHAPE, tokens)
    for row in rows:
        writer.append(row)
    writer.finish()
    (tmp_path / "l").write_bytes(damage((tmp_path / "l").read_bytes()))
    with pytest.raises(InputError):
        LogitsFile(tmp_path / "l")
