"""What `inspect` shows of a file is what gguf-py reads there."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from gguf import GGUFReader

from gguf_golf.cli import cli
from tests.evaluate.test_generate import TEMPLATE, with_template


@pytest.fixture
def file(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A file of several types with a chat template."""
    path = tmp_path / "small.gguf"
    with_template(tiny("q4_0"), path, TEMPLATE)
    return path


def test_the_document_holds_the_header_and_every_tensor(file: Path) -> None:
    shown = json.loads(CliRunner().invoke(cli, ["inspect", str(file), "--json"]).stdout)
    reader = GGUFReader(file)
    weights = sum(math.prod(map(int, tensor.shape)) for tensor in reader.tensors)
    stored = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    assert shown["bpw"] == pytest.approx(8 * stored / weights)
    assert shown["bytes"] == file.stat().st_size
    for key, name in (
        ("architecture", "general.architecture"),
        ("context_length", "llama.context_length"),
        ("layers", "llama.block_count"),
        ("tokenizer", "tokenizer.ggml.model"),
        ("chat_template", "tokenizer.chat_template"),
    ):
        assert shown[key] == reader.fields[name].contents(), key
    assert shown["vocabulary"] == len(reader.fields["tokenizer.ggml.tokens"].contents())
    assert {tensor["name"]: (tensor["type"], tensor["bytes"]) for tensor in shown["tensors"]} == {
        tensor.name: (tensor.tensor_type.name.lower(), int(tensor.n_bytes)) for tensor in reader.tensors
    }


def test_the_text_says_it_in_words(file: Path) -> None:
    said = CliRunner().invoke(cli, ["inspect", str(file), "--tensors"]).stdout
    reader = GGUFReader(file)
    for words in ("bits per weight", "architecture: llama", "context: ", "vocabulary: ", "chat template: yes"):
        assert words in said, words
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if ".weight  " in line}
    assert rows == {tensor.name: tensor.tensor_type.name.lower() for tensor in reader.tensors}
