"""The comparison with transformers finds a wrong file, and nothing in a right one."""

import json
import shutil
from pathlib import Path

import pytest
from gguf import GGUFReader
from tokenizers import pre_tokenizers

from tests.models.tokens.conftest import Write, byte_level, character_level, vocabulary_file

pytest.importorskip("transformers", reason="the [hf] extra")

from gguf_golf.models.tokens.check import compare, differences
from gguf_golf.runtime.session import LoadedModel


def test_a_right_file_has_no_differences(write: Write) -> None:
    for tokenizer in (
        byte_level([pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        character_level(pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    ):
        directory = write(tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast"}, model_type="llama")
        assert compare(directory, vocabulary_file(directory)[0]) == []


def test_added_tokens_of_other_files_are_known_without_transformers(write: Write) -> None:
    tokenizer = byte_level([pre_tokenizers.ByteLevel(add_prefix_space=False)])
    added = {str(tokenizer.get_vocab_size()): {"content": "<added>", "special": False}}
    size = tokenizer.get_vocab_size() + 1
    directory = write(tokenizer, {"added_tokens_decoder": added}, model_type="llama", vocab_size=size)
    with LoadedModel(vocabulary_file(directory)[0], vocab_only=True) as model:
        assert differences(directory, model) == []


def test_a_wrong_pretokenizer_is_found(write: Write) -> None:
    digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    directory = write(byte_level(digits), {"tokenizer_class": "PreTrainedTokenizerFast"}, model_type="llama")
    path, _ = vocabulary_file(directory)
    values = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    values["pre_tokenizer"]["pretokenizers"].append({"type": "Punctuation", "behavior": "Isolated"})
    (directory / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    assert any("becomes" in difference for difference in compare(directory, path))


def test_a_sentencepiece_model_alone(tiny_dir: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(tiny_dir / name, tmp_path)
    path, _ = vocabulary_file(tmp_path)
    assert GGUFReader(path).fields["tokenizer.ggml.model"].contents() == "llama"
    assert compare(tmp_path, path) == []
