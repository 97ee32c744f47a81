"""tokenizer.model: the same pieces as sentencepiece, or a refusal that names the setting."""

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.sentencepiece_proto import ModelType, PieceType, parse_model
from tests.models.tokens.conftest import CORPUS, TEXTS, llama_tokens, vocabulary_file

PLAIN: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "vocab_size": 420,
    "minloglevel": 2,
}
WITHOUT_SPECIAL = [text for text in TEXTS if "s>" not in text]


def train(directory: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    text = directory / "text.txt"
    text.write_text(CORPUS[:40000], encoding="utf-8")
    prefix = str(directory / "tokenizer")
    sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=prefix, **(PLAIN | options))
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    (directory / "config.json").write_text(json.dumps({"vocab_size": processor.vocab_size()}))
    return processor


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_dummy_prefix": False},
        {"add_dummy_prefix": False, "user_defined_symbols": ["<sep>", "<cls>", "▁▁▁"]},
        {"split_by_whitespace": False},
        {"split_digits": True},
    ],
    ids=str,
)
def test_the_same_pieces(options: dict[str, Any], tmp_path: Path) -> None:
    processor = train(tmp_path, **options)
    texts = [*WITHOUT_SPECIAL, "a <sep> b<cls>c   d", "<sep>"]
    path, notes = vocabulary_file(tmp_path)
    assert llama_tokens(path, texts) == [processor.EncodeAsIds(text) for text in texts]
    assert notes == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"normalization_rule_name": "nmt_nfkc"}, "nmt_nfkc"),
        ({"normalization_rule_name": "nfkc_cf"}, "nfkc_cf"),
        ({"remove_extra_whitespaces": True}, "extra spaces"),
        ({"treat_whitespace_as_suffix": True}, "end of words"),
        ({"user_defined_symbols": ["<sep>"]}, "user-defined"),
        ({"byte_fallback": False}, "byte tokens"),
        ({"model_type": "unigram"}, "unigram"),
        ({"model_type": "char", "byte_fallback": False, "hard_vocab_limit": False}, "char"),
    ],
    ids=str,
)
def test_what_llama_cpp_does_not_do_is_refused(options: dict[str, Any], word: str, tmp_path: Path) -> None:
    train(tmp_path, **options)
    with pytest.raises(InputError, match=word):
        vocabulary_file(tmp_path)


def test_a_null_add_prefix_space_leaves_it_to_the_model(tmp_path: Path) -> None:
    processor = train(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": None}))
    assert llama_tokens(vocabulary_file(tmp_path)[0], ["a b"]) == [processor.EncodeAsIds("a b")]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": False}))
    assert llama_tokens(vocabulary_file(tmp_path)[0], ["a b"]) != [processor.EncodeAsIds("a b")]


def as_json(processor: sentencepiece.SentencePieceProcessor) -> dict[str, Any]:
    vocab = {processor.IdToPiece(i): i for i in range(processor.vocab_size())}
    normalizers = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    return {
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "model": {"type": "BPE", "byte_fallback": True, "vocab": vocab, "merges": []},
    }


def test_added_tokens_that_only_tokenizer_json_has(tmp_path: Path) -> None:
    processor = train(tmp_path)
    n_pieces = processor.vocab_size()
    values = as_json(processor)
    values["added_tokens"] = [{"id": n_pieces, "content": "<|im_start|>", "special": True}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": n_pieces + 1}))
    (tokens,) = llama_tokens(vocabulary_file(tmp_path)[0], ["<|im_start|>user"])
    assert tokens == [n_pieces, *processor.EncodeAsIds("user")]


def test_a_model_that_was_left_behind_is_a_note(tmp_path: Path) -> None:
    values = as_json(train(tmp_path))
    texts = list(values["model"]["vocab"])
    swapped = [*texts[:-2], texts[-1], texts[-2]]
    values["model"]["vocab"] = {text: i for i, text in enumerate(swapped)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"tokenizer\.json"):  # which has no merges for its tokens
        vocabulary_file(tmp_path)


def test_the_wire_format_agrees_with_the_library(tmp_path: Path) -> None:
    processor = train(tmp_path, user_defined_symbols=["<sep>"], control_symbols=["<ctl>"])
    model = parse_model(processor.serialized_model_proto())
    assert [piece.text for piece in model.pieces] == [processor.IdToPiece(i) for i in range(processor.vocab_size())]
    assert [piece.score for piece in model.pieces] == [processor.GetScore(i) for i in range(processor.vocab_size())]
    assert [i for i, piece in enumerate(model.pieces) if piece.type == PieceType.BYTE] == [
        i for i in range(processor.vocab_size()) if processor.IsByte(i)
    ]
    assert model.pieces[processor.PieceToId("<sep>")].type == PieceType.USER_DEFINED
    assert model.pieces[processor.PieceToId("<ctl>")].type == PieceType.CONTROL
    assert model.special_ids == {"unk": 0, "bos": 1, "eos": 2}
    assert (model.model_type, model.normalizer, model.has_charsmap) == (ModelType.BPE, "identity", False)


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_cut_message_is_a_value_error(size: int, tmp_path: Path) -> None:
    data = train(tmp_path).serialized_model_proto()
    with pytest.raises(ValueError):
        parse_model(data[: len(data) - size])
