"""Pre-tokenizers are recognised from tokenizer.json, and the table agrees with llama.cpp's own source."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config
from gguf_golf.models.tokens import pretokenizer
from gguf_golf.models.tokens.files import TokenizerFiles
from gguf_golf.models.tokens.pretokenizer import CL100K, GPT2, KNOWN, O200K, PUNCTUATION, QWEN2, TEKKEN
from gguf_golf.models.unsupported import UnsupportedError
from gguf_golf.runtime.source import source_dir
from tests.models.checkpoints import byte_level_tokenizer


def files_of(tokenizer: dict[str, Any], settings: dict[str, Any] | None = None, **config: Any) -> TokenizerFiles:
    directory = Path("model")
    return TokenizerFiles(directory, Config(directory, config), tokenizer, settings or {}, {}, {}, {})


def reachable(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer without two tokens that its own merges do not make."""
    for text in ("Ġth", "Ġthe"):
        del tokenizer["model"]["vocab"][text]
    return tokenizer


def name_of(tokenizer: dict[str, Any]) -> str:
    return pretokenizer.choose_pretokenizer(files_of(tokenizer)).name


@pytest.mark.parametrize(
    ("pattern", "ignore_merges", "name"),
    [(None, False, "gpt-2"), (QWEN2, False, "qwen2"), (CL100K, True, "llama-bpe"), (CL100K, False, "smaug-bpe")],
)
def test_known(pattern: str | None, ignore_merges: bool, name: str) -> None:
    assert name_of(byte_level_tokenizer(pattern, ignore_merges=ignore_merges)) == name


def test_the_other_spelling_of_a_split() -> None:
    tokenizer = byte_level_tokenizer(CL100K.replace(r"\r", "\r").replace(r"\n", "\n"))
    tokenizer["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    assert name_of(tokenizer) == "smaug-bpe"


def test_possessive_quantifiers_and_other_spellings_of_contractions() -> None:
    regex = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    assert name_of(byte_level_tokenizer(regex)) == "bailingmoe"


def test_digits_before_gpt2() -> None:
    tokenizer = byte_level_tokenizer(None)
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    assert name_of(tokenizer) == "smollm"
    digits["individual_digits"] = False
    with pytest.raises(UnsupportedError):
        name_of(tokenizer)


def test_skipping_merges_is_no_difference_where_merges_make_every_token() -> None:
    tokenizer = reachable(byte_level_tokenizer(QWEN2, ignore_merges=True))
    assert name_of(tokenizer) == "qwen2"
    tokenizer["model"]["vocab"]["unreachable"] = 999
    with pytest.raises(UnsupportedError):
        name_of(tokenizer)


def test_combining_marks_are_right_where_a_name_allows_it() -> None:
    tokenizer = reachable(byte_level_tokenizer(O200K))
    assert name_of(tokenizer) == "granite-embed-multi-97m"
    tokenizer["model"]["vocab"]["unreachable"] = 999
    assert name_of(tokenizer) == "gpt-4o"


@pytest.mark.parametrize("normalizer", [{"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]}])
def test_nfc_is_a_note(normalizer: dict[str, object]) -> None:
    found = pretokenizer.choose_pretokenizer(files_of(byte_level_tokenizer(QWEN2) | {"normalizer": normalizer}))
    assert found.name == "qwen2" and "NFC" in found.notes[0]


@pytest.mark.parametrize(
    ("version", "kind", "n_tokens", "name"),
    [
        ("4.57.0", "mistral", 100_001, "tekken"),
        (None, "mistral3", 100_001, "tekken"),
        ("5.0.0", "mistral", 100_001, "llama-bpe"),
        ("4.57.0", "llama", 100_001, "llama-bpe"),
        ("4.57.0", "mistral", 100_000, "llama-bpe"),
    ],
)
def test_the_mistral_fix_applies_as_in_transformers(version: str | None, kind: str, n_tokens: int, name: str) -> None:
    tokenizer = byte_level_tokenizer(CL100K, ignore_merges=True)
    vocab = tokenizer["model"]["vocab"]
    vocab |= {f"filler{i}": i for i in range(len(vocab), n_tokens)}
    files = files_of(tokenizer, {"fix_mistral_regex": True}, transformers_version=version, model_type=kind)
    assert pretokenizer.choose_pretokenizer(files).name == name


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"pre_tokenizer": None}, UnsupportedError),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, InputError),
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": GPT2},
                    "behavior": "MergedWithNext",
                    "invert": False,
                }
            },
            UnsupportedError,
        ),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]}}, UnsupportedError),
        ({"normalizer": {"type": "Lowercase"}}, InputError),
    ],
)
def test_what_llama_cpp_cannot_do_is_refused(change: dict[str, object], error: type[InputError]) -> None:
    with pytest.raises(error) as raised:
        name_of(byte_level_tokenizer(None) | change)
    assert raised.type is error


def vocabulary_source() -> str:
    return (source_dir() / "src" / "llama-vocab.cpp").read_text(encoding="utf-8")


def branch(text: str, name: str) -> str:
    """What llama.cpp sets when tokenizer.ggml.pre is `name`."""
    return text[text.index(f'tokenizer_pre == "{name}"') :].split("} else if", 1)[0]


def expressions_of(text: str, name: str) -> list[str]:
    """The regular expressions of this pre-tokenizer in llama.cpp's source, each in one spelling."""
    found = re.search(r"pre_type = (LLAMA_VOCAB_PRE_TYPE_\w+);", branch(text, name))
    assert found is not None
    part = text[text.index(f"case {found[1]}:") :].split("break;", 1)[0]
    code = "\n".join(line for line in part.splitlines() if not line.strip().startswith("//"))
    literals = re.findall(r'"((?:[^"\\]|\\.)*)"', code.split("regex_exprs", 1)[1])
    return [canonical(json.loads(f'"{literal}"')) for literal in literals]


def canonical(regex: str) -> str:
    """One spelling for expressions that mean the same."""
    regex = pretokenizer._one_spelling(regex)
    # what GPT-2's rule leaves over at the end is cut off as one piece anyway
    return regex.removesuffix(r"|\s+") if regex.startswith("'s|") else regex


# What llama.cpp puts in place of classes of letters that std::regex lacks; INEXACT says what that changes
UPPER, LOWER = pretokenizer._UPPER, pretokenizer._LOWER
STAND_INS = {
    "tekken": ((UPPER, r"((?=[\p{L}])([^a-z]))"), (LOWER, r"((?=[\p{L}])([^A-Z]))")),
    "gpt-4o": ((UPPER, r"((?=[\p{L}])([^a-z]))"), (LOWER, r"((?=[\p{L}])([^A-Z]))")),
    "granite-embed-multi-97m": (
        (UPPER, r"((?=[\p{L}\p{M}])([^a-z]))"),
        (LOWER, r"((?=[\p{L}\p{M}])([^A-Z]))"),
    ),
}


@pytest.mark.parametrize(("expressions", "name"), [(key[0], name) for key, name in KNOWN.items()])
def test_expressions_are_those_of_llama_cpp(expressions: tuple[str, ...], name: str) -> None:
    expected = list(expressions)
    for ours, theirs in STAND_INS.get(name, ()):
        expected = [regex.replace(ours, theirs) for regex in expected]
    expected = [r"[\p{P}\$\+<=>\^~\|`]+" if regex == PUNCTUATION else canonical(regex) for regex in expected]
    assert expressions_of(vocabulary_source(), name) == expected


def test_merges_are_ignored_where_llama_cpp_ignores_them() -> None:
    for (_, ignore_merges), name in KNOWN.items():
        assert ("ignore_merges = true" in branch(vocabulary_source(), name)) == ignore_merges, name


def test_what_is_not_exact_is_a_note() -> None:
    tokenizer = byte_level_tokenizer(TEKKEN, ignore_merges=True)
    assert "Hindi" in pretokenizer.choose_pretokenizer(files_of(tokenizer)).notes[0]
    assert pretokenizer.choose_pretokenizer(files_of(byte_level_tokenizer(None))).notes == []
