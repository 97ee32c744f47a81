"""Bad checkpoints: each is refused with an error that names the file and the fix."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from gguf_golf.errors import DataError, InputError
from gguf_golf.models import open_model
from tests.models.checkpoints import BASE, random_weights, write_weights


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def rewrite_weights(path: Path, **changes: np.ndarray | None) -> None:
    """Write the checkpoint's weights again with some replaced, or left out where the new value is None."""
    weights = random_weights(json.loads((path / "config.json").read_text()))
    for name, values in changes.items():
        weights.pop(name, None)
        if values is not None:
            weights[name] = values
    write_weights(path, weights)


def rewrite_embeddings(path: Path, n: int) -> None:
    small = np.ones((n, BASE["hidden_size"]), np.float32)
    rewrite_weights(path, **{"model.embed_tokens.weight": small, "lm_head.weight": small})


def train_unigram(path: Path) -> None:
    (path / "tokenizer.json").unlink()
    text = path / "text.txt"
    text.write_text("the cat sat on the mat and the dog ran after the cat\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(path / "tokenizer"), vocab_size=20, model_type="unigram", minloglevel=2
    )


Q0 = "model.layers.0.self_attn.q_proj.weight"

BREAKAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no config": ("llama-biases", lambda p: (p / "config.json").unlink(), "has no config.json"),
    "config is no JSON": ("llama-biases", lambda p: cut(p / "config.json", 40), "cannot be read as JSON"),
    "config is a list": ("llama-biases", lambda p: (p / "config.json").write_text("[]"), "no JSON object"),
    "no architectures": ("llama-biases", lambda p: edit_json(p / "config.json", architectures=None), "architectures"),
    "hidden_size is text": ("llama-biases", lambda p: edit_json(p / "config.json", hidden_size="64"), "hidden_size"),
    "no vocab_size": ("llama-biases", lambda p: edit_json(p / "config.json", vocab_size=None), "vocab_size"),
    "odd heads": ("llama-biases", lambda p: edit_json(p / "config.json", num_key_value_heads=3), "do not divide"),
    "another activation": ("llama-biases", lambda p: edit_json(p / "config.json", hidden_act="gelu"), "hidden_act"),
    "heads of an absurd size": ("llama3-scaled", lambda p: edit_json(p / "config.json", head_dim=1 << 30), "head_dim"),
    "more layers than an integer has": (
        "llama3-scaled",
        lambda p: edit_json(p / "config.json", num_hidden_layers=2**63),
        "num_hidden_layers must be a positive integer",
    ),
    "an endless context": (
        "llama3-scaled",
        lambda p: edit_json(p / "config.json", original_max_position_embeddings=float("inf")),
        "llama3 rope scaling lacks a valid",
    ),
    "a vocabulary that is no number, on the second road": (
        "llama-biases",
        lambda p: edit_json(p / "config.json", architectures=["OlmoForCausalLM"], vocab_size=[320]),
        "vocab_size must be a positive integer",
    ),
    "layers of an unknown kind": (
        "qwen3-sharded",
        lambda p: edit_json(p / "config.json", layer_types=["linear_attention", "full_attention"]),
        "layer_types has 'linear_attention'",
    ),
    "unknown rope": (
        "llama-biases",
        lambda p: edit_json(p / "config.json", rope_scaling={"type": "spiral", "factor": 2}),
        "rope scaling 'spiral'",
    ),
    "negative rope_theta": (
        "llama-biases",
        lambda p: edit_json(p / "config.json", rope_theta=-10000.0),
        "theta: it is -10000.0, and must be positive",
    ),
    "rope without factor": (
        "llama-biases",
        lambda p: edit_json(p / "config.json", rope_scaling={"type": "linear"}),
        "linear rope scaling lacks",
    ),
    "yarn that keys cannot say": (
        "qwen3-sharded",
        lambda p: edit_json(p / "config.json", rope_scaling={"type": "yarn", "factor": 2, "truncate": False}),
        "yarn rope scaling with these settings",
    ),
    "rope settings of single layers": (
        "llama-biases",
        lambda p: edit_json(p / "config.json", rope_scaling=None, rope_parameters={"full_attention": {}}),
        "rope settings for full_attention",
    ),
    "two rope settings": (
        "llama-biases",
        lambda p: edit_json(p / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
        "both rope_scaling and rope_parameters",
    ),
    "a sliding window over heads with norms": (
        "qwen3-sharded",
        lambda p: edit_json(p / "config.json", use_sliding_window=True, sliding_window=8, max_window_layers=0),
        "last 8 of 256 tokens.*set max_position_embeddings to 8",
    ),
    "gptq": (
        "llama-biases",
        lambda p: edit_json(p / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        r"already quantized \(gptq\): start from full precision",
    ),
    "an adapter beside the weights": (
        "llama-biases",
        lambda p: (p / "adapter_config.json").write_text("{}"),
        "weights and an adapter",
    ),
    "an adapter": (
        "llama-biases",
        lambda p: (p / "model.safetensors").rename(p / "adapter_model.safetensors"),
        "is an adapter, not a model: merge it",
    ),
    "Mistral's own layout": (
        "llama-biases",
        lambda p: (p / "model.safetensors").rename(p / "consolidated.safetensors"),
        "only Mistral's own layout",
    ),
    "no weights": ("llama-biases", lambda p: (p / "model.safetensors").unlink(), "no model.safetensors"),
    "weights cut in the data": ("llama-biases", lambda p: cut(p / "model.safetensors", 90000), "truncated"),
    "weights cut in the header": ("llama-biases", lambda p: cut(p / "model.safetensors", 500), "truncated"),
    "weights empty": ("llama-biases", lambda p: cut(p / "model.safetensors", 0), "truncated"),
    "weights are text": (
        "llama-biases",
        lambda p: (p / "model.safetensors").write_text("version https://x\n"),
        "trunc",
    ),
    "shard missing": (
        "qwen3-sharded",
        lambda p: (p / "model-00002-of-00003.safetensors").unlink(),
        "1 of 3 shards are missing .model-00002-of-00003.safetensors.",
    ),
    "index missing": (
        "qwen3-sharded",
        lambda p: (p / "model.safetensors.index.json").unlink(),
        "no model.safetensors.index",
    ),
    "index damaged": ("qwen3-sharded", lambda p: cut(p / "model.safetensors.index.json", 30), "is damaged"),
    "index of another version": (
        "qwen3-sharded",
        lambda p: edit_json(
            p / "model.safetensors.index.json", weight_map={"ghost": "model-00001-of-00003.safetensors"}
        ),
        "no shard holds|names 1 tensors",
    ),
    "tensor missing": ("qwen2-yarn", lambda p: rewrite_weights(p, **{Q0: None}), f"{Q0} is missing"),
    "tensor unknown": (
        "qwen2-yarn",
        lambda p: rewrite_weights(p, **{"model.layers.0.lora_A": np.ones((2, 2), np.float32)}),
        "model.layers.0.lora_A.*do not belong|do not belong.*model.layers.0.lora_A",
    ),
    "tensor of another shape": (
        "qwen2-yarn",
        lambda p: rewrite_weights(p, **{Q0: np.ones((2, 2), np.float32)}),
        rf"{Q0} is \[2, 2\], config.json wants \[64, 64\]",
    ),
    "no tokenizer": ("llama-biases", lambda p: (p / "tokenizer.json").unlink(), "has no tokenizer"),
    "tokenizer cut": ("llama-biases", lambda p: cut(p / "tokenizer.json", 1000), "cannot be read as JSON"),
    "tokenizer without a model": (
        "llama-biases",
        lambda p: (p / "tokenizer.json").write_text('{"a": 1}'),
        "is damaged",
    ),
    "too few embeddings": (
        "llama-biases",
        lambda p: (edit_json(p / "config.json", vocab_size=100), rewrite_embeddings(p, 100)),
        "tokens, config.json's vocab_size is 100",
    ),
    "tokenizer.model is not sentencepiece": (
        "llama-biases",
        lambda p: (p / "tokenizer.json").rename(p / "tokenizer.model"),
        "is not a sentencepiece model",
    ),
    "unigram": ("llama-biases", train_unigram, "unigram"),
    "model card": ("llama-biases", lambda p: (p / "README.md").write_text("---\nlicense: [\n---\n"), "README.md"),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_broken_checkpoints_are_refused(what: str, checkpoint: Callable[[str], Path]) -> None:
    name, damage, message = BREAKAGES[what]
    path = checkpoint(name)
    open_model(path)  # it was good before
    damage(path)
    with pytest.raises(InputError, match=message):
        open_model(path)


def test_quantized_dtypes_are_refused(checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("qwen2-yarn")
    file = path / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header[Q0]["dtype"] = "F8_E4M3"
    header[Q0]["shape"] = [64, 128]  # as many bytes as before
    encoded = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])
    with pytest.raises(InputError, match=r"F8_E4M3: start from full precision"):
        open_model(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named_when_loaded(bad: float, checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("qwen2-yarn")
    weights = random_weights(json.loads((path / "config.json").read_text()))[Q0]
    weights[3, 5:8] = bad
    rewrite_weights(path, **{Q0: weights})
    tensor = open_model(path).tensor("blk.0.attn_q.weight")
    with pytest.raises(DataError, match=r"blk.0.attn_q.weight: 3 of 4096 weights are NaN or Inf"):
        tensor.load()
    tensor.load_rows(4, 64)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_model(tmp_path / "nothing")
