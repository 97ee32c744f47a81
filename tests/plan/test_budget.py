"""Budgets as people write them, and the memory that a context takes."""

import re

import pytest

from gguf_golf.errors import InputError
from gguf_golf.models import open_model
from gguf_golf.plan.budget import cache_bytes, context_bytes, n_weights, parse
from gguf_golf.runtime.session import LoadedModel, bindings, captured_log


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


@pytest.mark.parametrize(
    ("text", "keys", "values"),
    [
        ("1GB with 8192 tokens of q8_0 context", "q8_0", "q8_0"),
        ("fits in 1G with 8192 tokens of q8_0/q4_0", "q8_0", "q4_0"),
        ("1 GB with 8192 context", "f16", "f16"),
    ],
)
def test_types_of_the_cache(model, text, keys, values):
    assert parse(text, model).file_bytes == 1_000_000_000 - context_bytes(model, 8192, keys, values)


def test_a_cache_of_8_bits_takes_its_scales_too(model):
    assert cache_bytes(model, 1024, "q8_0", "q8_0") == 1024 * 3 * 2 * (64 // 32 * 34)
    with pytest.raises(InputError, match="no KV cache in tcq3"):
        parse("1GB with 8192 tokens of tcq3 context", model)


@pytest.mark.parametrize("types", [("f16", "f16"), ("q8_0", "q8_0"), ("q8_0", "f16")])
def test_the_cache_is_as_large_as_llama_cpp_reports(tiny, types):
    """golf-tiny, whose 4 layers all have full attention."""
    path, n_ctx = tiny("bf16"), 1024
    llama = bindings()
    numbers = {"f16": 1, "q8_0": 8}
    with LoadedModel(path) as model:
        params = llama.llama_context_default_params()
        params.n_ctx, params.type_k, params.type_v = n_ctx, numbers[types[0]], numbers[types[1]]
        params.flash_attn_type = 1  # llama.cpp quantizes values only with it
        with captured_log() as log:
            context = llama.llama_init_from_model(model._model, params)
        assert context
        llama.llama_free(context)
    (reported,) = re.findall(r"KV buffer size = +([\d.]+) MiB", "".join(log))
    assert cache_bytes(open_model(path), n_ctx, *types) == pytest.approx(float(reported) * 2**20, rel=0.01)
