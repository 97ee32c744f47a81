"""Which of llama.cpp's built-in pre-tokenizers does what a tokenizer.json asks for.

Recognised from what tokenizer.json says (the regular expressions, and whether merges may be skipped for whole words),
not from a hash of tokens as in llama.cpp's converter: so a new vocabulary with a known pre-tokenizer converts.
"""

import re
from typing import Any, NamedTuple

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.files import TokenizerFiles
from gguf_golf.models.tokens.merges import bpe, merges_of
from gguf_golf.models.tokens.sequence import sequence
from gguf_golf.models.unsupported import UnsupportedError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_OTHER_CONTRACTIONS = (
    r"'(?i:[sdmt]|ll|ve|re)",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])",
)
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_FRONT = r"[^\r\n\p{L}\p{N}]?"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # what ByteLevel does by itself
DIGIT = r"\p{N}"
CL100K = rf"{_CONTRACTIONS}|{_FRONT}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
QWEN2 = rf"{_CONTRACTIONS}|{_FRONT}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
QWEN35 = rf"{_CONTRACTIONS}|{_FRONT}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
SEED = rf"{_CONTRACTIONS}|{_FRONT}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
MINICPM = rf"{_CONTRACTIONS}|{_FRONT}\p{{L}}+|\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
O200K = (
    rf"{_FRONT}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_FRONT}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
TEKKEN = rf"{_FRONT}{_UPPER}*{_LOWER}+|{_FRONT}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
DEEPSEEK_V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"""| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"""
)
BAILING = rf"{_CONTRACTIONS}|{_FRONT}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
UFAKZEKA = rf"{_FRONT}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
JAIS2 = (
    rf"{_CONTRACTIONS}|{_FRONT}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|"
    + "|".join(rf"\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1))
    + r"|\s{1,2}(?!\S)|\s{1}"
)
EXAONE_MOE = (
    rf"{_CONTRACTIONS}|{_FRONT}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
PUNCTUATION = "punctuation"  # a step without a regular expression
SIGNS = "!-/:-~！-／：-～‘-‟\u3000-。"
HAN = "[一-龥ࠀ-一가-\ud7ff]+"
# Cased letters, as DeepSeek's first tokenizers list them
CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)

# (regular expressions in turn, ignore_merges) -> tokenizer.ggml.pre.
# Where llama.cpp has several names for one behaviour, one that leaves text as it is when it is put together again.
KNOWN: dict[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((DIGIT, GPT2), False): "smollm",
    ((PUNCTUATION, GPT2, r"[0-9][0-9][0-9]"), False): "falcon",
    ((CL100K,), True): "llama-bpe",
    ((CL100K,), False): "smaug-bpe",
    ((JAIS2,), False): "jais-2",
    ((QWEN2,), False): "qwen2",
    ((QWEN35,), False): "qwen35",
    ((r"[^\n]+|[\n]+", QWEN2), False): "laguna",
    ((UFAKZEKA,), False): "ufakzeka",
    ((BAILING,), False): "bailingmoe",
    ((EXAONE_MOE,), False): "exaone-moe",
    ((SEED,), False): "seed-coder",
    ((r"\p{N}{1,3}", MINICPM), True): "minicpm5",
    ((O200K,), False): "gpt-4o",
    ((O200K,), True): "granite-embed-multi-97m",
    ((r"\d{1,3}(?=(?:\d{3})*\b)", O200K), False): "tiny_aya",
    ((TEKKEN,), True): "tekken",
    ((r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", DEEPSEEK_V3), False): "deepseek-v3",
    (
        (r"[\r\n]", rf"\s?[{CASED}]+", rf"\s?[{SIGNS}]+", r"\s+$", HAN, r"\p{N}+"),
        False,
    ): "deepseek-llm",
    ((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN, DIGIT), False): "deepseek-coder",
    ((BLOOM,), False): "bloom",
    ((BLOOM, DIGIT), False): "viking",
}

CAPITALS = "words with capital letters beyond ASCII"
MARKS = "combining marks (as Hindi and Thai have)"
INEXACT = {
    "gpt-4o": [MARKS, CAPITALS],
    "tekken": [MARKS, CAPITALS],
    "granite-embed-multi-97m": [CAPITALS],
    "tiny_aya": [CAPITALS],
}


NOT_NFC = "llama.cpp does not bring text into Unicode's form NFC: text that is not gets other tokens"


class Pretokenizer(NamedTuple):
    """The value of tokenizer.ggml.pre, and what it does differently from the original."""

    name: str
    notes: list[str]


def choose_pretokenizer(files: TokenizerFiles) -> Pretokenizer:
    """The pre-tokenizer of llama.cpp for a byte-level BPE tokenizer.json.

    Raises InputError where llama.cpp has nothing of the kind, UnsupportedError where none is known to split text in the
    same way.
    """
    notes = []
    for step in sequence(files.tokenizer.get("normalizer"), "normalizers"):
        # llama.cpp does not normalize: of all normalizers NFC, which leaves almost all text as it is, is let through
        if step != {"type": "NFC"}:
            raise InputError(f"{files.path}: llama.cpp has no match for the normalizer {step!r:.120}")
        notes = [NOT_NFC]
    steps = _expressions(files)
    ignore_merges = bool(files.tokenizer["model"].get("ignore_merges", False))
    name, other = _known(steps, ignore_merges), _known(steps, not ignore_merges)
    better = other and (name is None or len(INEXACT.get(other, [])) < len(INEXACT.get(name, [])))
    if better and _merges_reach_every_token(files.tokenizer):
        name = other  # a token that is a whole word comes out either way
    if name is None:
        raise UnsupportedError(
            f"{files.path}: no pre-tokenizer of llama.cpp is known to split like {list(steps)!r} "
            f"(ignore_merges {ignore_merges})"
        )
    if name in INEXACT:
        notes.append(f"llama.cpp's pre-tokenizer {name} is not exact for {' and '.join(INEXACT[name])}")
    return Pretokenizer(name, notes)


def normalizes_to_nfc(files: TokenizerFiles) -> bool:
    """Whether NFC is among the normalizers of tokenizer.json."""
    return any(step.get("type") == "NFC" for step in sequence(files.tokenizer.get("normalizer"), "normalizers"))


def _known(steps: tuple[str, ...], ignore_merges: bool) -> str | None:
    names = {tuple(map(_one_spelling, key)): name for (key, ignores), name in KNOWN.items() if ignores == ignore_merges}
    return names.get(steps)


def _expressions(files: TokenizerFiles) -> tuple[str, ...]:
    """The regular expressions that the pre-tokenizer isolates, in turn, each in one spelling."""
    found: list[str] = []
    pre_tokenizer = files.tokenizer.get("pre_tokenizer")
    for step in sequence(pre_tokenizer, "pretokenizers"):
        match step:
            # "Removed" with "invert" keeps the matches and drops the rest, and these expressions leave no rest
            case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": behavior, "invert": invert} if (
                behavior,
                invert,
            ) in (("Isolated", False), ("Removed", True)):
                found.append(_one_spelling(regex))
            case {"type": "Digits", "individual_digits": True}:
                found.append(DIGIT)
            case {"type": "Digits", "individual_digits": False} if GPT2 in found:  # which has done that already
                pass
            case {"type": "Punctuation", "behavior": "Contiguous"}:
                found.append(PUNCTUATION)
            case {"type": "ByteLevel", "add_prefix_space": False}:
                found.extend([GPT2] if step.get("use_regex", True) else [])
            case {"type": "ByteLevel"}:
                raise InputError(
                    f"{files.path}: the tokenizer puts a space before a text, llama.cpp does not for this kind: no "
                    "GGUF file can hold it"
                )
            case _:
                raise UnsupportedError(f"{files.path}: no pre-tokenizer of llama.cpp is known to match {step!r:.120}")
    return _with_mistral_fix(files, found)


def _with_mistral_fix(files: TokenizerFiles, found: list[str]) -> tuple[str, ...]:
    """fix_mistral_regex replaces the first expression (transformers' _patch_mistral_regex has the conditions)."""
    values, n_tokens = files.config.values, len(files.tokenizer["model"]["vocab"])
    version = re.match(r"\d+", str(values.get("transformers_version") or "0"))
    applies = (
        files.settings.get("fix_mistral_regex") is True
        and n_tokens > 100_000
        and (version is None or int(version[0]) < 5)
        and values.get("model_type") in (None, "mistral", "mistral3", "voxtral", "ministral", "pixtral")
    )
    return (_one_spelling(TEKKEN), *found[1:]) if applies else tuple(found)


def _one_spelling(regex: str) -> str:
    """Line ends escaped, contractions in any case written in one way, no possessive quantifiers.

    In these expressions what follows a possessive quantifier never matches what it has taken: it changes nothing.
    (Inside brackets "*+" is two characters; both sides of the comparison lose the same one.)
    """
    regex = regex.replace("\r", r"\r").replace("\n", r"\n")
    regex = re.sub(r"(?<!\\)([?*+]|\{[\d,]+\})\+", r"\1", regex)
    for spelling in _OTHER_CONTRACTIONS:
        regex = regex.replace(spelling, _CONTRACTIONS)
    return regex


def _merges_reach_every_token(tokenizer: dict[str, Any]) -> bool:
    """Whether merging makes one token of each token's text, so that skipping merges for it changes nothing."""
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges_of(tokenizer))))}
    added = {token["content"] for token in tokenizer.get("added_tokens") or []}
    return all(bpe(text, ranks) == [text] for text in tokenizer["model"]["vocab"] if text not in added)
