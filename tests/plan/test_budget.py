"""Budgets as people write them, and the memory that a context takes."""

from dataclasses import replace

import pytest

from gguf_golf.errors import InputError
from gguf_golf.models import open_model
from gguf_golf.plan.budget import Memory, n_weights, parse, parse_memory
from gguf_golf.plan.memory import context_memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2GB", 1_200_000_000),
        ("700 MiB", 700 << 20),
        ("38_000_000", 38_000_000),
        ("38,000,000 b", 38_000_000),
        ("2gib", 2 << 30),
        (" 31MB ", 31_000_000),
        ("6G", 6_000_000_000),
        ("512 M", 512_000_000),
        ("1.5Gi", 3 << 29),
    ],
)
def test_bytes(model, text, expected):
    assert parse(text, model).file_bytes == expected


def test_bits_per_weight(model):
    budget = parse("2.7 bpw", model)
    assert budget.bpw == 2.7
    assert budget.file_bytes is None


def test_memory_with_a_context(tiny_dir):
    model = open_model(tiny_dir)
    budget = parse("fits in 1 GB with 8192 tokens of context", model)
    assert budget.file_bytes == 1_000_000_000 - context_memory(model, 8192).total
    assert parse("1GB with 8192", model) == replace(budget, text="1GB with 8192")


def test_context_larger_than_memory(tiny_dir):
    with pytest.raises(InputError, match="context take"):
        parse("fits in 1 MB with 100000 tokens of context", open_model(tiny_dir))


@pytest.mark.parametrize("text", ["", "much", "-3MB", "1.2.3GB", "2.7 bits", "12 parsecs", "fits in 8 GB"])
def test_nonsense_says_what_to_write(model, text):
    with pytest.raises(InputError, match="bpw"):
        parse(text, model)


def test_weights(model):
    assert n_weights(model) == 256_000 + 3 * (256 + 2 * 256 * 256 + 2 * 64 * 256 + 3 * 512 * 256)


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("1GB with 8192 tokens of q8_0 context", Memory(10**9, 8192, "q8_0", "q8_0")),
        ("fits in 1G with 8192 tokens of q8_0/q4_0", Memory(10**9, 8192, "q8_0", "q4_0")),
        ("1 GB with 8192 context", Memory(10**9, 8192, "f16", "f16")),
        ("6GiB", Memory(6 << 30, 4096, "f16", "f16")),
    ],
)
def test_memory_and_the_types_of_its_cache(text, memory):
    assert parse_memory(text) == memory


def test_nonsense_about_memory_says_what_to_write():
    with pytest.raises(InputError, match="6GB with 8192 tokens"):
        parse_memory("2.7bpw")
