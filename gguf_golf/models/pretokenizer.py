"""Which of llama.cpp's built-in pre-tokenizers does what a tokenizer.json asks for.

Recognised from what tokenizer.json says (the regular expressions, and whether merges may be skipped for whole words),
not from a hash of tokens as in llama.cpp's converter: so a new vocabulary with a known pre-tokenizer converts.
"""

from pathlib import Path
from typing import Any

from gguf_golf.models.unsupported import UnsupportedError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
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

# (regular expressions in turn, ignore_merges) -> tokenizer.ggml.pre.
# Where llama.cpp has several names for one behaviour, the name of the family that is Llama-shaped.
KNOWN: dict[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((DIGIT, GPT2), False): "smollm",
    ((CL100K,), True): "llama-bpe",
    ((CL100K,), False): "smaug-bpe",
    ((QWEN2,), False): "qwen2",
    ((QWEN35,), False): "qwen35",
    ((SEED,), False): "seed-coder",
    ((r"\p{N}{1,3}", MINICPM), True): "minicpm5",
    ((O200K,), False): "gpt-4o",
    ((TEKKEN,), True): "tekken",
    ((r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", DEEPSEEK_V3), False): "deepseek-v3",
    ((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", DIGIT), False): "deepseek-coder",
}


def pretokenizer_name(tokenizer: dict[str, Any], path: Path) -> str:
    """The value of tokenizer.ggml.pre for a byte-level BPE tokenizer.json (already parsed; `path` is for messages).

    Raises UnsupportedError where llama.cpp has none that is known to split text in the same way.
    """
    # llama.cpp does not normalize: of all normalizers NFC, which leaves almost all text as it is, is let through
    if (normalizer := tokenizer.get("normalizer")) not in (None, {"type": "NFC"}):
        raise UnsupportedError(f"{path}: llama.cpp has no match for the normalizer {normalizer!r}")
    steps = _steps(tokenizer.get("pre_tokenizer"))
    ignore_merges = bool(tokenizer["model"].get("ignore_merges", False))
    name = KNOWN.get((tuple(steps), ignore_merges)) if steps is not None else None
    if name is None:
        shown = steps if steps is not None else tokenizer.get("pre_tokenizer")
        raise UnsupportedError(
            f"{path}: no pre-tokenizer of llama.cpp is known to split like {shown!r} (ignore_merges {ignore_merges})"
        )
    return name


def _steps(pre_tokenizer: Any) -> list[str] | None:
    """The regular expressions that a pre-tokenizer isolates, in turn; None if it does anything else."""
    match pre_tokenizer:
        case {"type": "Sequence", "pretokenizers": list(parts)}:
            inner = [_steps(part) for part in parts]
            return None if None in inner else [regex for steps in inner if steps for regex in steps]
        # "Removed" with "invert" keeps the matches and drops the rest, and these expressions leave no rest
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": behavior, "invert": invert} if (
            behavior,
            invert,
        ) in (("Isolated", False), ("Removed", True)):
            return [regex.replace("\r", r"\r").replace("\n", r"\n")]
        case {"type": "Digits", "individual_digits": True}:
            return [DIGIT]
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return [GPT2] if pre_tokenizer.get("use_regex", True) else []
        case _:
            return None
