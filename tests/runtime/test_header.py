"""The header reader against gguf-py."""

import math
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from gguf_golf.errors import InputError
from gguf_golf.formats.quant_types import register_with_gguf
from gguf_golf.runtime.header import GgufHeader


def test_agrees_with_gguf_py(tiny: Callable[[str], Path]) -> None:
    register_with_gguf()
    path = tiny("q4_k")
    reader = gguf.GGUFReader(path)
    with GgufHeader(path) as header:
        tensors = header.tensors()
        assert header.text("general.architecture") == "llama"
        assert header.text("llama.block_count") is None  # not a string
        assert header.text("no.such.key") is None
    assert [(t.name, t.type, t.bytes) for t in tensors] == [
        (t.name, t.tensor_type.name, int(t.n_bytes)) for t in reader.tensors
    ]
    assert [t.shape for t in tensors] == [tuple(reversed(t.shape.tolist())) for t in reader.tensors]
    assert all(math.prod(t.shape) == int(r.n_elements) for t, r in zip(tensors, reader.tensors, strict=True))


def test_the_tokenizer_digest_sees_the_tokenizer_and_nothing_else(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(tiny("q4_0").read_bytes().replace("\u2581the".encode(), "\u2581thq".encode(), 1))
    digests = []
    for path in (tiny("q4_0"), tiny("bf16"), changed):
        with GgufHeader(path) as header:
            digests.append(header.tokenizer_digest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("keep", [5, 1000, 200_000])
def test_a_truncated_file_is_refused(tiny: Callable[[str], Path], tmp_path: Path, keep: int) -> None:
    (tmp_path / "t.gguf").write_bytes(tiny("q4_0").read_bytes()[:keep])
    with pytest.raises(InputError, match="incomplete"):
        GgufHeader(tmp_path / "t.gguf")
