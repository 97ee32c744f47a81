"""BOS, EOS, stop tokens and the tokens that only a name announces, against what tokenizers and transformers do."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer, pre_tokenizers, processors

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.special import ENDS_BY_NAME
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.runtime.source import source_dir
from tests.models.tokens.conftest import Write, byte_level, llama_tokens, vocabulary_file

END_OF_TEXT, BOS, EOS = 0, 1, 2


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_level([pre_tokenizers.ByteLevel(add_prefix_space=False)])


def with_template(tokenizer: Tokenizer, single: str) -> dict[str, Any]:
    ids = {"<|endoftext|>": END_OF_TEXT, "<s>": BOS, "</s>": EOS}
    template = processors.TemplateProcessing(single=single, pair=f"{single} $B", special_tokens=list(ids.items()))
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return dict(json.loads(copy.to_str()))


def fields_of(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True}])
@pytest.mark.parametrize(
    "single", ["$A", "<s> $A", "$A </s>", "<s> $A </s>", "<|endoftext|> $A", "$A <|endoftext|>", "<s> $A <|endoftext|>"]
)
def test_the_template_counts_and_not_the_flags(
    single: str, flags: dict[str, bool], tokenizer: Tokenizer, write: Write
) -> None:
    values = with_template(tokenizer, single)
    path, _ = vocabulary_file(write(values, flags))
    expected = Tokenizer.from_str(json.dumps(values)).encode("plain words").ids
    assert llama_tokens(path, ["plain words"], add_special=True) == [expected]


@pytest.mark.parametrize("kind", ["RobertaProcessing", "BertProcessing"])
def test_other_post_processors(kind: str, tokenizer: Tokenizer, write: Write) -> None:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.post_processor = getattr(processors, kind)(("</s>", EOS), ("<s>", BOS))
    path, _ = vocabulary_file(write(copy))
    assert llama_tokens(path, ["a b"], add_special=True) == [copy.encode("a b").ids]


def test_two_tokens_in_front_are_a_note_and_none_is_put(tokenizer: Tokenizer, write: Write) -> None:
    path, (note,) = vocabulary_file(write(with_template(tokenizer, "<|endoftext|> <s> $A")))
    assert "<|endoftext|><s>" in note
    assert llama_tokens(path, ["a b"], add_special=True) == [tokenizer.encode("a b").ids]


def test_without_a_post_processor_nothing_is_put(tokenizer: Tokenizer, write: Write) -> None:
    path, _ = vocabulary_file(write(tokenizer, {"add_bos_token": True}))
    assert llama_tokens(path, ["a b"], add_special=True) == [tokenizer.encode("a b").ids]


def ends(path: Path) -> set[int]:
    with LoadedModel(path, vocab_only=True) as model:
        return {i for i in range(model.n_vocab) if model.is_end_of_generation(i)}


def with_added(tokenizer: Tokenizer, *texts: str) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.add_special_tokens(list(texts))
    return copy


def test_every_token_that_stops_generate_stops_llama_cpp(tokenizer: Tokenizer, write: Write) -> None:
    others = [tokenizer.get_vocab_size(), tokenizer.get_vocab_size() + 1]
    directory = write(with_added(tokenizer, "[/ANSWER]", "<|user|>"), eos_token_id=EOS)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, *others]}))
    path, notes = vocabulary_file(directory)
    assert {EOS, *others} <= ends(path)
    assert notes == []


def test_the_fourth_stop_token_is_named(tokenizer: Tokenizer, write: Write) -> None:
    _, (note,) = vocabulary_file(write(with_added(tokenizer, "<a>", "<b>", "<c>"), eos_token_id=[EOS, 800, 801, 802]))
    assert "does not stop at <c>" in note


def test_without_an_end_an_unused_id_keeps_llama_cpps_default_away(tokenizer: Tokenizer, write: Write) -> None:
    directory = write(tokenizer, {"bos_token": None, "eos_token": None}, vocab_size=810)
    path, _ = vocabulary_file(directory)
    assert 11 not in ends(path)
    assert fields_of(path)["tokenizer.ggml.eos_token_id"] >= 800


def test_ids_that_only_special_tokens_map_names(tokenizer: Tokenizer, write: Write) -> None:
    directory = write(tokenizer, {"bos_token": None, "eos_token": None})
    names = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": "<|endoftext|>"}
    (directory / "special_tokens_map.json").write_text(json.dumps(names))
    fields = fields_of(vocabulary_file(directory)[0])
    kinds = {"bos": BOS, "eos": EOS, "padding": END_OF_TEXT}
    assert {kind: fields[f"tokenizer.ggml.{kind}_token_id"] for kind in kinds} == kinds


def test_negative_ids_mean_none(tokenizer: Tokenizer, write: Write) -> None:
    settings = {"bos_token": None, "eos_token": None}
    fields = fields_of(vocabulary_file(write(tokenizer, settings, bos_token_id=-1, pad_token_id=-1, eos_token_id=2))[0])
    assert "tokenizer.ggml.bos_token_id" not in fields and "tokenizer.ggml.padding_token_id" not in fields
    assert fields["tokenizer.ggml.eos_token_id"] == EOS


def test_a_named_token_that_no_vocabulary_holds_is_appended(tokenizer: Tokenizer, write: Write) -> None:
    """As transformers does; a model that has a row for it then knows it."""
    n_tokens = tokenizer.get_vocab_size()
    path, _ = vocabulary_file(write(tokenizer, {"pad_token": "<|pad|>"}, vocab_size=n_tokens + 1))
    fields = fields_of(path)
    assert fields["tokenizer.ggml.padding_token_id"] == n_tokens
    assert fields["tokenizer.ggml.tokens"][n_tokens] == "<|pad|>"


@pytest.mark.parametrize("value", ["2", [2, "3"], 1.5, True])
def test_an_id_that_is_no_number_is_refused(value: object, tokenizer: Tokenizer, write: Write) -> None:
    with pytest.raises(InputError, match="eos_token_id must be an integer"):
        vocabulary_file(write(tokenizer, eos_token_id=value))


def test_ends_by_name_are_llama_cpps() -> None:
    source = (source_dir() / "src" / "llama-vocab.cpp").read_text(encoding="utf-8")
    part = source[source.index("special_eog_ids.clear();") : source.index("special_eog_ids.insert(t.second);")]
    names = {line.split('t.first == "')[1].split('"')[0] for line in part.splitlines() if 't.first == "' in line}
    assert names == ENDS_BY_NAME


@pytest.mark.parametrize("i", [-1, 10**6])
def test_a_template_with_an_id_of_no_token_is_refused(i: int, tokenizer: Tokenizer, write: Write) -> None:
    values = with_template(tokenizer, "<s> $A")
    values["post_processor"]["processors"][1]["special_tokens"]["<s>"]["ids"] = [i]
    with pytest.raises(InputError, match="no token"):
        vocabulary_file(write(values))
