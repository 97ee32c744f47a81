"""One text, three uses: disjoint, spread over the text, and in chunks that are whole passages."""

import numpy as np
import pytest

from gguf_golf.calibrate.split import split
from gguf_golf.errors import InputError
from gguf_golf.runtime.session import LoadedModel

N_CTX = 64


@pytest.fixture(scope="module")
def base(tiny):
    return tiny("bf16")


def test_passages_follow_calibration_are_spread_and_disjoint(base, demo_text, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(demo_text.read_text()[:60_000])
    parts = split(base, text, N_CTX, 20, 3, 10)
    assert parts.calibration_chunks == 20
    with LoadedModel(base, vocab_only=True) as model:
        tokens = model.tokenize(text.read_bytes())
        head = b"".join(model.piece(int(token)) for token in tokens[: 20 * N_CTX])
        passages = [model.tokenize(part) for part in (parts.ranking, parts.control)]
        assert [len(each) // N_CTX for each in passages] == [3, 10]
        assert all(abs(len(each) % N_CTX) < 20 for each in passages), "whole chunks, give or take a few tokens"
    source, found = text.read_bytes(), []
    for part in (parts.ranking, parts.control):
        for i in range(0, len(part) - 80, len(part) // (10 if part is parts.control else 3)):
            place = source.find(part[i + 20 : i + 80])
            found.append(place)
    places = np.array([place for place in found if place >= 0])
    assert len(places) >= 8
    assert places.min() >= len(head) - 100, "nothing of what calibrates"
    assert source.find(parts.control[-81:-21]) > 0.95 * len(source), "to the end of the text"
    assert not set(parts.ranking.split(b"\n")) & set(parts.control.split(b"\n")) - {b"", b" "}


def test_a_short_text_gives_each_use_its_share(base, demo_text, tmp_path):
    text = tmp_path / "short.txt"
    with LoadedModel(base, vocab_only=True) as model:
        tokens = model.tokenize(demo_text.read_bytes())[: 10 * N_CTX + 5]
        text.write_bytes(b"".join(model.piece(int(token)) for token in tokens).decode("utf-8", "ignore").encode())
        parts = split(base, text, N_CTX, 32, 4, 16)
        assert parts.calibration_chunks == 7
        counts = [round(len(model.tokenize(part)) / N_CTX) for part in (parts.ranking, parts.control)]
    assert min(counts) == 1 and sum(counts) == 3


def test_a_text_of_less_than_four_chunks_is_refused(base, tmp_path):
    text = tmp_path / "tiny.txt"
    text.write_text("Too short for anything. " * 5)
    with pytest.raises(InputError, match="too few to calibrate on one part"):
        split(base, text, N_CTX, 32, 4, 16)
