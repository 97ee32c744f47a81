"""The token list: added tokens of every file, ids beyond the embedding, two tokens of one text, missing bytes."""

import json
from typing import Any

import pytest
from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from gguf_golf.errors import InputError
from tests.models.tokens.conftest import Write, byte_level, character_level, llama_tokens, vocabulary_file


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_level([pre_tokenizers.ByteLevel(add_prefix_space=False)])


def values_of(tokenizer: Tokenizer) -> dict[str, Any]:
    return dict(json.loads(tokenizer.to_str()))


def test_added_tokens_of_every_file(tokenizer: Tokenizer, write: Write) -> None:
    values, n_tokens = values_of(tokenizer), tokenizer.get_vocab_size()
    values["added_tokens"].append(values["added_tokens"][0] | {"id": n_tokens, "content": "<json>"})
    decoder = {str(n_tokens + 1): {"content": "<decoder>", "special": False}}
    directory = write(values, {"added_tokens_decoder": decoder}, vocab_size=n_tokens + 3)
    (directory / "added_tokens.json").write_text(json.dumps({"<list>": n_tokens + 2}))
    fields = GGUFReader(vocabulary_file(directory)[0]).fields
    assert fields["tokenizer.ggml.tokens"].contents()[n_tokens:] == ["<json>", "<decoder>", "<list>"]
    expected = [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.USER_DEFINED]
    assert fields["tokenizer.ggml.token_type"].contents()[n_tokens:] == expected


def test_an_added_token_beyond_the_embedding_is_a_note(tokenizer: Tokenizer, write: Write) -> None:
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.add_special_tokens([AddedToken("<extra>")])
    _, (note,) = vocabulary_file(write(tokenizer, vocab_size=tokenizer.get_vocab_size() - 1))
    assert "<extra>" in note


@pytest.mark.parametrize("i", [-1, "x"])
def test_an_added_token_with_an_impossible_id_is_refused(i: object, tokenizer: Tokenizer, write: Write) -> None:
    directory = write(tokenizer, {"added_tokens_decoder": {str(i): {"content": "<bad>"}}})
    with pytest.raises(InputError):
        vocabulary_file(directory)


def test_two_ids_of_one_text_load_and_the_added_one_is_found(tokenizer: Tokenizer, write: Write) -> None:
    values, n_tokens = values_of(tokenizer), tokenizer.get_vocab_size()
    word = next(text for text in values["model"]["vocab"] if text.isalpha() and len(text) > 3)
    values["added_tokens"].append(values["added_tokens"][0] | {"id": n_tokens, "content": word, "special": False})
    path, (note,) = vocabulary_file(write(values))
    assert word in note
    assert llama_tokens(path, [word]) == [[n_tokens]]


def test_two_tokens_of_one_id_are_refused(tokenizer: Tokenizer, write: Write) -> None:
    values = values_of(tokenizer)
    values["model"]["vocab"]["again"] = 7
    with pytest.raises(InputError, match="7 is not the id of one token"):
        vocabulary_file(write(values))


@pytest.mark.parametrize(("unk", "refused"), [("<unk>", True), (None, False)])
def test_a_partial_alphabet(unk: str | None, refused: bool, tokenizer: Tokenizer, write: Write) -> None:
    """Without an unknown token both leave the byte out; with one, llama.cpp still does."""
    values = values_of(tokenizer)
    vocab = values["model"]["vocab"]
    gone = vocab.pop("~")
    vocab["<unk>"] = gone
    values["model"]["unk_token"] = unk
    directory = write(values)
    if refused:
        with pytest.raises(InputError, match="0x7e"):
            vocabulary_file(directory)
    else:
        path, _ = vocabulary_file(directory)
        expected = Tokenizer.from_str(json.dumps(values)).encode("a~b ~~").ids
        assert llama_tokens(path, ["a~b ~~"]) == [expected]


def test_a_byte_that_no_text_holds_may_be_missing(tokenizer: Tokenizer, write: Write) -> None:
    values = values_of(tokenizer)
    values["model"]["vocab"]["<unk>"] = values["model"]["vocab"].pop("ÿ")  # 0xFF
    values["model"]["unk_token"] = "<unk>"
    vocabulary_file(write(values))


@pytest.mark.parametrize(
    ("option", "value"), [("continuing_subword_prefix", "##"), ("end_of_word_suffix", "</w>"), ("dropout", 0.1)]
)
def test_options_that_llama_cpp_lacks_are_refused(
    option: str, value: object, tokenizer: Tokenizer, write: Write
) -> None:
    values = values_of(tokenizer)
    values["model"][option] = value
    with pytest.raises(InputError, match=option):
        vocabulary_file(write(values))


def test_characters_without_byte_tokens_are_refused(write: Write) -> None:
    values = values_of(character_level(pre_tokenizers.Metaspace(prepend_scheme="never", split=False)))
    vocab = values["model"]["vocab"]
    vocab["unused"] = vocab.pop("<0xE2>")
    with pytest.raises(InputError, match="<0xE2>"):
        vocabulary_file(write(values))


def test_a_vocabulary_of_impossible_size_is_refused(tokenizer: Tokenizer, write: Write) -> None:
    with pytest.raises(InputError, match="vocab_size"):
        vocabulary_file(write(tokenizer, vocab_size=10**20))


def test_texts_that_llama_cpp_reads_as_one_load(tokenizer: Tokenizer, write: Write) -> None:
    """It reads a text up to a zero byte."""
    values, n_tokens = values_of(tokenizer), tokenizer.get_vocab_size()
    first = values["added_tokens"][0]
    values["added_tokens"] += [first | {"id": n_tokens + i, "content": f"<x>\0{i}"} for i in range(2)]
    path, (note,) = vocabulary_file(write(values))
    assert "<x>" in note
    assert llama_tokens(path, ["<x>"]) == [[n_tokens + 1]]
