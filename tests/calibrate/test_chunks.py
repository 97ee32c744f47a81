"""Texts cut into chunks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gguf_golf.calibrate.chunks import read_text, text_chunks, with_bos
from gguf_golf.errors import InputError
from gguf_golf.runtime.session import LoadedModel


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Iterator[LoadedModel]:
    with LoadedModel(tiny("q4_0"), vocab_only=True) as loaded:
        yield loaded


def test_chunks_are_the_text_from_its_beginning(model: LoadedModel, demo_text: Path) -> None:
    whole = model.tokenize(demo_text.read_bytes().removesuffix(b"\n"))
    chunks = text_chunks(model, demo_text, 512)
    assert len(chunks) == len(whole) // 512
    np.testing.assert_array_equal(chunks.ravel(), whole[: chunks.size])


@pytest.mark.parametrize(("n_ctx", "n_chunks"), [(16, 1), (64, 3), (512, 10), (512, 1000)])
def test_the_first_chunks_do_not_depend_on_what_follows(
    model: LoadedModel, demo_text: Path, n_ctx: int, n_chunks: int
) -> None:
    np.testing.assert_array_equal(
        text_chunks(model, demo_text, n_ctx, n_chunks), text_chunks(model, demo_text, n_ctx)[:n_chunks]
    )


def test_bos_takes_the_first_place(model: LoadedModel, demo_text: Path) -> None:
    chunk = text_chunks(model, demo_text, 64, 2)[1]
    seen = with_bos(model, chunk)
    assert seen[0] == model.bos == 1
    np.testing.assert_array_equal(seen[1:], chunk[1:])


def test_one_final_newline_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a\n\n")
    assert read_text(tmp_path / "t") == b"a\n"


@pytest.mark.parametrize(("n_ctx", "n_chunks"), [(2, 1), (64, 0), (64, -1)])
def test_nothing_to_measure_is_refused(model: LoadedModel, demo_text: Path, n_ctx: int, n_chunks: int) -> None:
    with pytest.raises(InputError):
        text_chunks(model, demo_text, n_ctx, n_chunks)
