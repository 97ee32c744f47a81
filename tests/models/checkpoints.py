"""Small deterministic Hugging Face checkpoints of each family, built with NumPy alone.

They are the same bytes on every machine, so that what llama.cpp's converter, transformers and tokenizers made of them
(make_golden.py) can be kept and compared with.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

VOCAB = 320
HIDDEN, FEED_FORWARD, BLOCKS = 64, 96, 2

BASE: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB,
    "tie_word_embeddings": False,
}

TEXTS = [
    "The cat sat on the mat, and the other cat sat there too.",
    "I've 12345 apples; WE'LL see\n\n  indented\tline \r\n",
    "été à la carte — naïve 日本語 🦙",
    " leading and trailing  ",
    "x=1;y=[2,3]; // <|end|> done",
    "",
]

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")

MERGES = [
    *("t h", "Ġ t", "Ġt h", "Ġth e", "a t", "Ġ a", "i n", "e r", "Ġ s", "Ġs at", "Ġ c", "Ġc at", "o n", "n d", "Ġa nd"),
    *("1 2", "12 3", "Ã ©", "th e", "T h", "Th e", "Ġ m", "Ġm at", "h er", "2 3", "Ġ Ġ"),
]


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the bytes 0 to 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def byte_level_tokenizer(pattern: str | None, *, ignore_merges: bool = False, bos: bool = False) -> dict[str, Any]:
    """A tokenizer.json of byte-level BPE; `pattern` None is GPT-2's own."""
    tokens = byte_alphabet()
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    specials = ["<|endoftext|>", "<|end|>"]
    vocab = {token: i for i, token in enumerate([*tokens, *specials])}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": pattern is None}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [vocab["<|endoftext|>"]], "tokens": ["<|endoftext|>"]}
        },
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(vocab[token], token, special=True) for token in specials]
        + [_added(len(vocab), "<tool>", special=False)],
        "normalizer": None,
        "pre_tokenizer": byte_level if pattern is None else {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {"type": "Sequence", "processors": [byte_level, *([template] if bos else [])]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": vocab,
            "merges": [list(merge) for merge in merges],
        },
    }


def sentencepiece_style_tokenizer() -> dict[str, Any]:
    """A tokenizer.json like Mistral's: BPE over characters, bytes as fallback, "▁" for spaces."""
    pieces = [merge.replace("Ġ", "▁").replace(" ", "") for merge in MERGES if "Ã" not in merge]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [*sorted(set("".join(pieces))), *pieces]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    # As converted from sentencepiece: every way to make a piece of two others is a merge, in the order of the pieces
    splits = [(piece[:i], piece[i:]) for piece in pieces for i in range(1, len(piece))]
    merges = [(left, right) for left, right in splits if left in vocab and right in vocab]
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, token, special=True) for i, token in enumerate(tokens[:3])],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, sequence],
            "pair": [bos, sequence, bos, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [" ".join(merge) for merge in merges],
        },
    }


def build(name: str, directory: Path) -> Path:
    """Write the checkpoint called `name` (a key of CASES) into directory/name and return that path."""
    return CASES[name](directory / name)


def write_checkpoint(
    path: Path,
    config: dict[str, Any],
    tokenizer: dict[str, Any],
    settings: dict[str, Any],
    *,
    dtype: str = "bfloat16",
    shards: int = 1,
) -> Path:
    """Write config.json, tokenizer files and random weights of the right names and shapes."""
    path.mkdir(parents=True)
    _write_json(path / "config.json", config)
    write_tokenizer(path, tokenizer, **settings)
    write_weights(path, random_weights(config), dtype=dtype, shards=shards)
    return path


def write_tokenizer(path: Path, tokenizer: dict[str, Any], **settings: Any) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    _write_json(path / "tokenizer.json", tokenizer)
    _write_json(path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | settings)


def random_weights(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """f32 weights by their transformers names, the same for the same config."""
    rng = np.random.default_rng(7)
    hidden, feed_forward, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    q, kv = heads * head_dim, kv_heads * head_dim
    linears = {
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (feed_forward, hidden),
        "mlp.up_proj": (feed_forward, hidden),
        "mlp.down_proj": (hidden, feed_forward),
    }
    biased = set()
    if config["model_type"] == "qwen2":
        biased = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}
    if config.get("attention_bias"):
        biased = {name for name in linears if name.startswith("self_attn")}
    if config.get("mlp_bias"):
        biased |= {name for name in linears if name.startswith("mlp")}
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if config["model_type"] == "qwen3":
        norms |= {"self_attn.q_norm": head_dim, "self_attn.k_norm": head_dim}
    weights = {"model.embed_tokens.weight": rng.normal(0, 0.5, (vocab, hidden))}
    for block in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{block}"
        for norm, size in norms.items():
            weights[f"{prefix}.{norm}.weight"] = rng.normal(1, 0.2, size)
        for linear, shape in linears.items():
            weights[f"{prefix}.{linear}.weight"] = rng.normal(0, 0.12, shape)
            if linear in biased:
                weights[f"{prefix}.{linear}.bias"] = rng.normal(0, 0.2, shape[0])
    weights["model.norm.weight"] = rng.normal(1, 0.2, hidden)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = rng.normal(0, 0.12, (vocab, hidden))
    return {name: values.astype(np.float32) for name, values in weights.items()}


def write_weights(path: Path, weights: dict[str, np.ndarray], *, dtype: str = "bfloat16", shards: int = 1) -> None:
    """Write safetensors in one file, or in `shards` files with an index."""
    if shards == 1:
        _write_safetensors(path / "model.safetensors", weights, dtype)
        return
    names = list(weights)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: weights[name] for name in names[shard::shards]}
        _write_safetensors(path / file, part, dtype)
        weight_map |= dict.fromkeys(part, file)
    _write_json(path / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_safetensors(path: Path, weights: dict[str, np.ndarray], dtype: str) -> None:
    def stored(values: np.ndarray) -> bytes:
        if dtype == "bfloat16":  # cut off: any BF16 will do
            return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        return values.astype(dtype).tobytes()

    names = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
    header: dict[str, Any] = {}
    blobs, end = [], 0
    for name, values in weights.items():
        blobs.append(stored(values))
        header[name] = {"dtype": names[dtype], "shape": values.shape, "data_offsets": [end, end + len(blobs[-1])]}
        end += len(blobs[-1])
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(blobs))


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")


def _added(i: int, content: str, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, **flags, "special": special}


def _qwen2(path: Path) -> Path:
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rope_theta": 1e6,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    }
    settings = {"eos_token": "<|end|>", "chat_template": "{{ messages[0]['content'] }}", "add_bos_token": False}
    tokenizer = byte_level_tokenizer(_QWEN2)
    write_checkpoint(path, BASE | config | {"tie_word_embeddings": True}, tokenizer, settings)
    sampling = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "do_sample": True}
    _write_json(path / "generation_config.json", sampling)
    return path


def _qwen3(path: Path) -> Path:
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32, "rope_theta": 1e6}
    settings = {"eos_token": "<|end|>", "bos_token": None}
    write_checkpoint(path, BASE | config, byte_level_tokenizer(_QWEN2), settings, dtype="float16", shards=3)
    (path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    return path


def _llama3(path: Path) -> Path:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 282,
        "eos_token_id": 283,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    }
    settings = {"bos_token": "<|endoftext|>", "eos_token": "<|end|>"}
    tokenizer = byte_level_tokenizer(_LLAMA3, ignore_merges=True, bos=True)
    return write_checkpoint(path, BASE | config | {"tie_word_embeddings": True}, tokenizer, settings)


def _mistral(path: Path) -> Path:
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "head_dim": 32,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return write_checkpoint(path, BASE | config, sentencepiece_style_tokenizer(), settings, dtype="float32")


def _llama_biases(path: Path) -> Path:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": {"type": "linear", "factor": 2.0},
    }
    settings = {"bos_token": "<|endoftext|>", "eos_token": "<|end|>", "add_bos_token": True}
    write_checkpoint(path, BASE | config, byte_level_tokenizer(None), settings)
    card = "---\nlicense: apache-2.0\nlanguage:\n- en\ntags:\n- test\nbase_model: someone/Other-1B\n---\n# A card\n"
    (path / "README.md").write_text(card, encoding="utf-8")
    return path


CASES = {
    "qwen2-yarn": _qwen2,
    "qwen3-sharded": _qwen3,
    "llama3-scaled": _llama3,
    "mistral-json": _mistral,
    "llama-biases": _llama_biases,
}
