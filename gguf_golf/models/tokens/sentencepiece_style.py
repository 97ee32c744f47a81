"""Sentencepiece-style BPE from tokenizer.json: BPE over characters, "▁" for spaces, bytes as fallback.

llama.cpp has two tokenizers of this kind. "llama" merges the pair whose result has the best score, and can put a space
in front. "sarvam-moe", which it calls a pre-tokenizer of "gpt2", merges by the list of merges and cannot.
"""

import re
from dataclasses import dataclass

from gguf import GGUFWriter, TokenType

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.files import TokenizerFiles
from gguf_golf.models.tokens.merges import Pair, bpe, merges_of, splits
from gguf_golf.models.tokens.sequence import sequence
from gguf_golf.models.tokens.space_prefix import SpacePrefix, add_space_prefix
from gguf_golf.models.tokens.special import missing_special_tokens
from gguf_golf.models.tokens.vocabulary import SPACE, Vocabulary, flag_notes

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass
class Rules:
    """What normalizer and pre-tokenizer do beyond writing "▁" for spaces."""

    prefix: SpacePrefix = SpacePrefix.NEVER
    split: bool = False  # into words, each with its "▁" in front
    normalizes: bool = False  # before added tokens with `normalized` are looked for


def sentencepiece_style_vocabulary(writer: GGUFWriter, files: TokenizerFiles, vocab_size: int) -> Vocabulary:
    """Add tokens, scores or merges, and the space prefix. Raises InputError for what no GGUF file can hold."""
    rules, vocab, merges = rules_of(files), files.tokenizer["model"]["vocab"], merges_of(files.tokenizer)
    check_bytes(files, vocab)
    added = {token.text for token in files.added_tokens}
    scores = _scores(vocab, merges)
    odd = _differs_by_score(vocab, merges, added, split=rules.split)
    vocabulary = Vocabulary(vocab_size)
    vocabulary.check_fits(files.path, vocab.values())
    for text, i in vocab.items():
        type_ = TokenType.BYTE if BYTE_TOKEN.fullmatch(text) else TokenType.NORMAL
        vocabulary.set(i, text, type_, scores[text])
    vocabulary.notes += flag_notes(files.added_tokens, normalized=rules.normalizes)
    vocabulary.add([*files.added_tokens, *missing_special_tokens(files, vocabulary)])
    if odd is None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        vocabulary.write(writer, scores=True)
        add_space_prefix(writer, vocabulary, rules.prefix)
        note_class(files, vocabulary, rules.prefix)
    elif rules.prefix == SpacePrefix.NEVER:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("sarvam-moe")
        vocabulary.write(writer, scores=False)
        # a split keeps "▁" from being merged to what is before it
        kept = [(left, right) for left, right in merges if not (rules.split and SPACE in right)]
        writer.add_token_merges([f"{left} {right}" for left, right in kept])
    else:
        raise InputError(
            f"{files.path}: llama.cpp would make {odd!r} one token where this tokenizer's merges do not, and its "
            "tokenizer that follows merges cannot put a space in front: no GGUF file can hold this tokenizer"
        )
    return vocabulary


def note_class(files: TokenizerFiles, vocabulary: Vocabulary, prefix: SpacePrefix) -> None:
    """Note where transformers 5 does not follow tokenizer.json: its LlamaTokenizer always is a Metaspace, "first"."""
    name = str(files.settings.get("tokenizer_class") or files.config.get("tokenizer_class") or "")
    ours = files.config.get("model_type") == "llama" and name.removesuffix("Fast") == "LlamaTokenizer"
    if ours and files.tokenizer and prefix == SpacePrefix.ALWAYS:
        vocabulary.notes.append(
            "transformers 5 puts no space before text that begins with one or follows a special token; tokenizer.json "
            "says, and transformers 4 and this file do"
        )


def check_bytes(files: TokenizerFiles, vocab: dict[str, int]) -> None:
    """Raise InputError if some byte of an unknown character has no token: llama.cpp aborts on the first one."""
    ascii_bytes = {byte for byte in range(128) if (SPACE if byte == 32 else chr(byte)) not in vocab}
    needed = ascii_bytes | set(range(0x80, 0xF5)) - {0xC0, 0xC1}
    missing = sorted(byte for byte in needed if f"<0x{byte:02X}>" not in vocab)
    if missing:
        raise InputError(
            f"{files.directory}: the tokenizer has no byte tokens (such as <0x{missing[0]:02X}>), so that characters "
            "it does not know are unknown to it: llama.cpp cannot run such a tokenizer"
        )


def rules_of(files: TokenizerFiles) -> Rules:
    """Raises InputError for a step that llama.cpp does not have."""
    rules = Rules()
    escaped = False
    for step in sequence(files.tokenizer.get("normalizer"), "normalizers"):
        rules.normalizes = True
        match step:
            case {"type": "Prepend", "prepend": "▁"}:
                rules.prefix = SpacePrefix.ALWAYS
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                escaped = True
            case _:
                raise InputError(f"{files.path}: llama.cpp has no match for the normalizer {step!r:.120}")
    for step in sequence(files.tokenizer.get("pre_tokenizer"), "pretokenizers"):
        match step:
            case {"type": "Metaspace", "replacement": "▁", **options}:
                if rules.prefix == SpacePrefix.NEVER:
                    old = "always" if options.get("add_prefix_space", True) else "never"
                    rules.prefix = SpacePrefix.of_metaspace(options.get("prepend_scheme", old))
                rules.split = bool(options.get("split", True))
                escaped = True
            case {"type": "Split", "pattern": {"String": " "}} if escaped:  # it never finds one
                pass
            case _:
                raise InputError(f"{files.path}: llama.cpp has no match for the pre-tokenizer {step!r:.120}")
    if not escaped:
        raise InputError(f"{files.path}: nothing writes '▁' for a space, which llama.cpp always does for this kind")
    return rules


def _scores(vocab: dict[str, int], merges: list[Pair]) -> dict[str, float]:
    """Minus the rank of the first merge that makes a token. (llama.cpp's converter gives all tokens one score.)"""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    return {text: -float(ranks.get(text, len(merges))) for text in vocab}


def _differs_by_score(vocab: dict[str, int], merges: list[Pair], added: set[str], *, split: bool) -> str | None:
    """A token that makes merging by score differ from merging by the list of merges; None if they are the same.

    Merging by score joins any two tokens whose text is a token. That changes nothing if the merges of one token follow
    each other in rank, and if the list of merges makes one token of the text of every token: then two of its parts can
    never be left side by side.
    """
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    previous: str | None = None
    finished: set[str] = set()
    for left, right in merges:
        text = left + right
        if text != previous:
            if text in finished and text not in added:
                return text
            finished.add(text)
            previous = text
    for text in vocab:
        if len(text) == 1 or text in added or BYTE_TOKEN.fullmatch(text):
            continue
        for pair in splits(text, vocab):
            if split and SPACE in pair[1]:
                return text
            if pair not in ranks and bpe(text, ranks) != [text]:
                return text
    return None
