"""`verify` tells the model of a checkpoint from another one, by tokens and by logits."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gguf_golf.cli import cli
from gguf_golf.models import open_model
from gguf_golf.verify import compare
from tests.models.conftest import write_gguf


def test_equal_logits_have_no_divergence_and_infinite_ones_are_infinitely_wrong() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    kl, agreement = compare(logits, logits + 3)  # a constant changes no probability
    assert (round(kl, 9), agreement) == (0.0, 1.0)
    assert compare(logits, np.full_like(logits, np.nan))[0] == np.inf
    two = np.log(np.array([[0.5, 0.5]], np.float32))
    assert compare(two, np.log(np.array([[0.25, 0.75]], np.float32)))[0] == pytest.approx(0.5 * np.log(4 / 3))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    pytest.importorskip("torch", reason="needs the [hf] extra")
    from tests.models.test_families import save_model  # noqa: PLC0415 - it takes the extra

    save_model(tmp_path / "checkpoint", "Qwen3", {})
    return tmp_path / "checkpoint"


def test_a_conversion_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    command = ["convert", str(checkpoint), "-o", str(tmp_path / "m.gguf"), "--verify", "--threads", "1"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "right: same tokens; logits at 256 positions" in done.output


@pytest.mark.parametrize("change", ["a weight", "a token"])
def test_another_model_is_wrong(change: str, checkpoint: Path, tmp_path: Path) -> None:
    model = open_model(checkpoint)
    if change == "a weight":
        tensor = model.tensors.pop(3)
        model.tensors.append(type(tensor)(tensor.name, tensor.shape, "F32", lambda a, b: -tensor.load_rows(a, b)))
    else:
        at = next(i for i, field in enumerate(model.metadata) if field.key == "tokenizer.ggml.pre")
        model.metadata[at] = model.metadata[at]._replace(value="llama-bpe")
    path = write_gguf(model, tmp_path / "m.gguf")
    done = CliRunner().invoke(cli, ["verify", str(checkpoint), str(path), "--threads", "1"])
    assert done.exit_code == 1
    assert done.output.startswith("WRONG")
    assert ("tokens differ" in done.output) == (change == "a token")
