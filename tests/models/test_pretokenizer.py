"""Pre-tokenizers are recognised from tokenizer.json, and the table agrees with llama.cpp's own source."""

import re
from pathlib import Path

import pytest

from gguf_golf.models.pretokenizer import CL100K, GPT2, KNOWN, QWEN2, pretokenizer_name
from gguf_golf.models.unsupported import UnsupportedError
from gguf_golf.runtime.source import source_dir
from tests.models.checkpoints import byte_level_tokenizer

PATH = Path("tokenizer.json")


@pytest.mark.parametrize(
    ("pattern", "ignore_merges", "name"),
    [(None, False, "gpt-2"), (QWEN2, False, "qwen2"), (CL100K, True, "llama-bpe"), (CL100K, False, "smaug-bpe")],
)
def test_known(pattern: str | None, ignore_merges: bool, name: str) -> None:
    assert pretokenizer_name(byte_level_tokenizer(pattern, ignore_merges=ignore_merges), PATH) == name


def test_the_other_spelling_of_a_split() -> None:
    tokenizer = byte_level_tokenizer(CL100K.replace(r"\r", "\r").replace(r"\n", "\n"))
    tokenizer["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    assert pretokenizer_name(tokenizer, PATH) == "smaug-bpe"


def test_digits_before_gpt2() -> None:
    tokenizer = byte_level_tokenizer(None)
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    assert pretokenizer_name(tokenizer, PATH) == "smollm"
    digits["individual_digits"] = False
    with pytest.raises(UnsupportedError):
        pretokenizer_name(tokenizer, PATH)


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "MergedWithNext", "invert": False}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]}},
        {"normalizer": {"type": "Lowercase"}},
    ],
)
def test_what_llama_cpp_cannot_do_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError):
        pretokenizer_name(byte_level_tokenizer(None) | change, PATH)


def vocabulary_source() -> str:
    return (source_dir() / "src" / "llama-vocab.cpp").read_text(encoding="utf-8")


def branch(text: str, name: str) -> str:
    """What llama.cpp sets when tokenizer.ggml.pre is `name`."""
    return text[text.index(f'tokenizer_pre == "{name}"') :].split("} else if", 1)[0]


def expressions_of(text: str, name: str) -> str:
    """The part of llama.cpp's source that lists the regular expressions of this pre-tokenizer."""
    found = re.search(r"pre_type = (LLAMA_VOCAB_PRE_TYPE_\w+);", branch(text, name))
    assert found is not None
    return text[text.index(f"case {found[1]}:") :].split("break;", 1)[0]


def unescaped(literal: str) -> str:
    """The text that a C string literal stands for, but for line ends, which stay escaped as in KNOWN."""
    return re.sub(r'\\([\\"])', r"\1", literal)


def canonical(regex: str) -> str:
    """One spelling for the two ways to say "any case"."""
    letters = re.sub(r"\(\?i:([^)]*)\)", lambda m: "(?:" + re.sub("[a-z]", both_cases, m[1]) + ")", regex)
    return letters.removesuffix(r"|\s+") if letters.startswith("'s|") else letters


def both_cases(letter: re.Match[str]) -> str:
    return f"[{letter[0]}{letter[0].upper()}]"


@pytest.mark.parametrize(("expressions", "name"), [(key[0], name) for key, name in KNOWN.items()])
def test_expressions_are_those_of_llama_cpp(expressions: tuple[str, ...], name: str) -> None:
    part = canonical(unescaped(expressions_of(vocabulary_source(), name)))
    for regex in expressions:
        assert f'"{canonical(regex)}"' in part


def test_merges_are_ignored_where_llama_cpp_ignores_them() -> None:
    for (_, ignore_merges), name in KNOWN.items():
        assert ("ignore_merges = true" in branch(vocabulary_source(), name)) == ignore_merges, name
