"""Budgets as people write them, and the memory that a context takes."""

import pytest

from gguf_golf.errors import InputError
from gguf_golf.plan.budget import context_bytes, n_weights, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2GB", 1_200_000_000),
        ("700 MiB", 700 << 20),
        ("38_000_000", 38_000_000),
        ("38,000,000 b", 38_000_000),
        ("2gib", 2 << 30),
        (" 31MB ", 31_000_000),
    ],
)
def test_bytes(model, text, expected):
    assert parse(text, model).file_bytes == expected


def test_bits_per_weight(model):
    budget = parse("2.7 bpw", model)
    assert budget.bpw == 2.7
    assert budget.file_bytes is None


def test_memory_with_a_context(model):
    budget = parse("fits in 1 GB with 8192 tokens of context", model)
    assert budget.file_bytes == 1_000_000_000 - context_bytes(model, 8192)
    assert parse("1GB with 8192", model).file_bytes == budget.file_bytes


def test_kv_cache_by_hand(model):
    """3 layers, one KV head of 64 + 64, 2 bytes a number; twice the tokens add exactly that, and the attention mask."""
    more = context_bytes(model, 16384) - context_bytes(model, 8192)
    assert more == 8192 * 3 * (64 + 64) * 2 + 2 * 512 * 8192


def test_context_larger_than_memory(model):
    with pytest.raises(InputError, match="context take"):
        parse("fits in 1 MB with 100000 tokens of context", model)


@pytest.mark.parametrize("text", ["", "much", "-3MB", "1.2.3GB", "2.7 bits", "12 parsecs", "fits in 8 GB"])
def test_nonsense_says_what_to_write(model, text):
    with pytest.raises(InputError, match="bpw"):
        parse(text, model)


def test_weights(model):
    assert n_weights(model) == 256_000 + 3 * (256 + 2 * 256 * 256 + 2 * 64 * 256 + 3 * 512 * 256)
