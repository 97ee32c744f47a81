"""Merges of a BPE tokenizer.json, and what they make of a text."""

from collections.abc import Iterator, Mapping
from typing import Any

Pair = tuple[str, str]


def merges_of(tokenizer: dict[str, Any]) -> list[Pair]:
    """The merges by rank; tokenizer.json has them as "a b" or, since transformers 4.45, as ["a", "b"].

    Of a merge that is listed twice the last counts, as in tokenizers.
    """
    merges = tokenizer["model"]["merges"]
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    last = dict.fromkeys((left, right) for left, right in reversed(pairs))
    return list(reversed(last))


def bpe(text: str, ranks: Mapping[Pair, int]) -> list[str]:
    """The pieces that merging makes of one word: always the pair of the lowest rank, the leftmost of equals."""
    parts = list(text)
    while len(parts) > 1:
        rank, i = min((ranks.get((parts[i], parts[i + 1]), len(ranks)), i) for i in range(len(parts) - 1))
        if rank == len(ranks):
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def splits(text: str, vocab: Mapping[str, int]) -> Iterator[Pair]:
    """Every way to cut a token into two tokens of the vocabulary."""
    for i in range(1, len(text)):
        if text[:i] in vocab and text[i:] in vocab:
            yield text[:i], text[i:]
