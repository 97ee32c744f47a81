"""Models in other engines stand in the same table, by the same arithmetic, and are refused for the same reasons."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import gguf_golf as gg
from gguf_golf.api import Model
from gguf_golf.cli import cli
from gguf_golf.errors import DataError, InputError
from gguf_golf.evaluate.engine import Peer
from gguf_golf.evaluate.evaluate import run_suite
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.suite import Suite


@pytest.fixture
def suite(demo_text: Path) -> Suite:
    return Suite(None, (TextSettings(demo_text, 256, 3),))


@pytest.fixture
def peer(tiny: Callable[[str], Path]) -> Iterator[Peer]:
    """golf-tiny in Q4_0 as `gguf_golf.load` runs it: an engine of another kind, as far as `evaluate` knows."""
    with closing(gg.load(tiny("q4_0"), threads=1)) as engine:
        yield Peer("golf-tiny in another engine", engine, 3_000_000)


def test_an_engine_gets_the_scores_of_the_same_file(
    suite: Suite, peer: Peer, tiny: Callable[[str], Path], own_cache: Path
) -> None:
    base, file, other = run_suite(suite, tiny("bf16"), [tiny("q4_0")], peers=[peer], threads=1)
    assert file.measures and other.measures and base.parameters == other.parameters
    assert other.measures.kld_mean == pytest.approx(file.measures.kld_mean, rel=1e-3)
    assert other.measures.ppl == pytest.approx(file.measures.ppl, rel=1e-4)
    assert other.measures.text_bytes == file.measures.text_bytes
    assert len(other.chunks["kld"]) == 3
    assert (other.file, other.role, other.bytes) == (peer.name, "quant", 3_000_000)
    assert other.bpw == pytest.approx(8 * 3_000_000 / base.parameters)


class Otherwise:
    """An engine that does one thing otherwise than `engine`."""

    def __init__(self, engine: Model, difference: str) -> None:
        self.engine, self.difference = engine, difference

    def tokenize(self, text: str) -> NDArray[np.int32]:
        tokens = self.engine.tokenize(text)
        return tokens[::-1] if self.difference == "tokens" else tokens

    def logits(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        logits = self.engine.logits(tokens)
        if self.difference == "NaN":
            logits[200, 5] = np.nan
        return logits[:, :-1] if self.difference == "vocabulary" else logits

    def close(self) -> None:
        """Nothing of its own."""


@pytest.mark.parametrize(
    ("difference", "error", "message"),
    [
        ("tokens", InputError, r"another engine: its tokens of .*demo.txt are not those of the base"),
        ("vocabulary", InputError, r"another engine: its logits of 256 tokens have the shape \(256, 4095\)"),
        ("NaN", DataError, r"another engine, chunk 1: .*NaN"),
    ],
)
def test_another_model_is_refused_by_name(
    difference: str,
    error: type[Exception],
    message: str,
    suite: Suite,
    peer: Peer,
    tiny: Callable[[str], Path],
    own_cache: Path,
) -> None:
    assert isinstance(peer.engine, Model)
    other = replace(peer, engine=Otherwise(peer.engine, difference))
    with pytest.raises(error, match=message):
        run_suite(suite, tiny("bf16"), [], peers=[other], threads=1)


MODULE = """
import gguf_golf as gg

def open_engine(path, threads):
    return gg.load(path, threads=threads)
"""


def test_a_python_module_is_an_engine(
    tiny: Callable[[str], Path], demo_text: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_engine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    quant = tiny("q4_0")
    shared = ["eval", tiny("bf16"), "--text", demo_text, "--chunks", 1, "--threads", 1, "--engine"]
    done = CliRunner().invoke(cli, [*map(str, shared), f"own_engine:{quant}"])
    assert done.exit_code == 0, done.output
    assert f"{quant.name} (own_engine)  {quant.stat().st_size / 1e6:.1f}" in done.output
    for wrong, message in (
        (f"absent_engine:{quant}", "there is no such engine"),
        ("transformers", "write ENGINE:PATH"),
        (f"own_engine:{tmp_path / 'absent'}", "with a path that exists"),
        (f"own_engine:{tmp_path}", "holds no weights"),
    ):
        refused = CliRunner().invoke(cli, [*map(str, shared), wrong])
        assert isinstance(refused.exception, InputError) and message in str(refused.exception)


def test_transformers_computes_what_the_base_does(
    tiny_dir: Path, tiny: Callable[[str], Path], demo_text: Path, own_cache: Path
) -> None:
    pytest.importorskip("torch", reason="needs the [hf] extra")
    from gguf_golf.evaluate.transformers_engine import open_engine  # noqa: PLC0415 - it takes the extra

    peer = Peer("golf-tiny (transformers)", open_engine(tiny_dir, 1), 1)
    suite = Suite(None, (TextSettings(demo_text, 256, 2),))
    with closing(peer.engine):
        base, quant, other = run_suite(suite, tiny("f32"), [tiny("q8_0")], peers=[peer], threads=1)
    assert base.measures and quant.measures and other.measures
    assert other.measures.ppl == pytest.approx(base.measures.ppl, rel=1e-3)
    assert other.measures.kld_mean is not None and quant.measures.kld_mean is not None
    assert abs(other.measures.kld_mean) < quant.measures.kld_mean / 10
