"""llama.cpp with the file that we write cuts texts as the tokenizers library does, or the tokenizer is refused."""

import json
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.pretokenizer import DIGIT, GPT2, INEXACT, KNOWN, PUNCTUATION
from tests.models.tokens.conftest import (
    CAPITALS,
    MARKS,
    TEXTS,
    Write,
    byte_level,
    character_level,
    llama_tokens,
    vocabulary_file,
)

Metaspace = pre_tokenizers.Metaspace


def parts_of(expressions: tuple[str, ...]) -> list[Any]:
    single = {
        GPT2: pre_tokenizers.ByteLevel(add_prefix_space=False),
        DIGIT: pre_tokenizers.Digits(individual_digits=True),
        PUNCTUATION: pre_tokenizers.Punctuation("contiguous"),
    }
    parts = [single.get(regex) or pre_tokenizers.Split(Regex(regex), "isolated") for regex in expressions]
    return parts if GPT2 in expressions else [*parts, pre_tokenizers.ByteLevel(False, use_regex=False)]


def compare(tokenizer: Tokenizer, write: Write, texts: list[str]) -> list[str]:
    """Compare the tokens of texts; the notes."""
    path, notes = vocabulary_file(write(tokenizer))
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert llama_tokens(path, texts) == expected
    return notes


@pytest.mark.parametrize(("known", "name"), KNOWN.items(), ids=KNOWN.values())
def test_every_known_pretokenizer(known: tuple[tuple[str, ...], bool], name: str, write: Write) -> None:
    expressions, ignore_merges = known
    odd = " ".join(INEXACT.get(name, ()))
    texts = [*TEXTS, *([] if "marks" in odd else [MARKS]), *([] if "capital" in odd else [CAPITALS])]
    notes = compare(byte_level(parts_of(expressions), ignore_merges=ignore_merges), write, texts)
    assert bool(notes) == (name in INEXACT)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_metaspace(split: bool, scheme: str, write: Write) -> None:
    compare(character_level(Metaspace(prepend_scheme=scheme, split=split)), write, [*TEXTS, MARKS, CAPITALS])


def test_a_prepend_normalizer(write: Write) -> None:
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    assert compare(character_level(None, normalizer), write, [*TEXTS, MARKS]) == []


def test_gemmas_steps(write: Write) -> None:
    split = pre_tokenizers.Split(" ", "merged_with_previous")
    assert compare(character_level(split, normalizers.Replace(" ", "▁")), write, [*TEXTS, MARKS]) == []


def with_merges(tokenizer: Tokenizer, *merges: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(tokenizer.to_str())
    model = values["model"]
    for merge in merges:
        model["vocab"].setdefault("".join(merge), len(model["vocab"]))
        model["merges"].append(merge)
    return values


@pytest.mark.parametrize("scheme", ["never", "always"])
def test_merges_that_a_split_prevents(scheme: str, write: Write) -> None:
    """Merging by the list of merges can leave them out; merging by score, which a space in front needs, cannot."""
    values = with_merges(character_level(Metaspace(prepend_scheme=scheme, split=True)), ["▁", "▁"], ["▁▁", "▁"])
    tokenizer = Tokenizer.from_str(json.dumps(values))
    if scheme == "never":
        compare(tokenizer, write, TEXTS)
    else:
        with pytest.raises(InputError, match="no GGUF file can hold"):
            vocabulary_file(write(tokenizer))


def test_added_tokens_beside_text(write: Write) -> None:
    tokenizer = byte_level([pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<|im_start|>")])
    texts = ["a<tool>b", "a <tool> b", "<tool><tool>", "<|im_start|>user\n<tool>", "<|im_start|>"]
    assert compare(tokenizer, write, texts) == []


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_flags_that_llama_cpp_lacks_are_a_note(flag: str, write: Write) -> None:
    tokenizer = byte_level([pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_tokens([AddedToken("<mask>", normalized=False, **{flag: True})])
    (note,) = compare(tokenizer, write, ["plain words of text"])
    assert f"<mask> ({flag})" in note


def test_where_transformers_does_not_follow_the_file_is_a_note(write: Write) -> None:
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    _, (note,) = vocabulary_file(
        write(character_level(None, prepend), {"tokenizer_class": "LlamaTokenizer"}, model_type="llama")
    )
    assert "transformers 5" in note
    tokenizer = byte_level([pre_tokenizers.ByteLevel(add_prefix_space=False)])
    _, (note,) = vocabulary_file(write(tokenizer, model_type="qwen2"))
    assert "Qwen2's own" in note
