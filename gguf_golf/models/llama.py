"""Llama-shaped checkpoints (Llama, Mistral, Qwen2, Qwen3) as GGUF: tensors and hyperparameters.

Names, order of keys and values are those of llama.cpp's own converter (conversion/base.py, llama.py, qwen.py of the
pinned source); everything else goes through that converter itself, see upstream.py.
"""

import math
from dataclasses import dataclass

import numpy as np
from gguf import GGUFWriter, RopeScalingType

from gguf_golf.errors import InputError
from gguf_golf.models.checkpoint import FLOAT_DTYPES, StoredTensor
from gguf_golf.models.config import Config
from gguf_golf.models.model import FloatArray, LazyTensor


@dataclass(frozen=True)
class Family:
    """What sets one Llama-shaped family apart from the others."""

    name: str  # general.architecture
    permuted: bool = False  # llama.cpp's "llama" rotates neighbouring pairs, transformers rotates halves
    head_dim: bool = False  # head_dim is part of the configuration, and has a default
    head_norms: bool = False  # RMS norms over each head of q and k
    linear_biases: bool = False  # o, gate, up and down may carry biases; q, k and v may in every family


FAMILIES = {
    "LlamaForCausalLM": Family("llama", permuted=True, head_dim=True, linear_biases=True),
    "LLaMAForCausalLM": Family("llama", permuted=True, head_dim=True, linear_biases=True),
    "MistralForCausalLM": Family("llama", permuted=True, head_dim=True, linear_biases=True),
    "Qwen2ForCausalLM": Family("qwen2"),
    "Qwen3ForCausalLM": Family("qwen3", head_dim=True, head_norms=True),
}
"""transformers class -> family; these convert without torch."""


@dataclass(frozen=True)
class Shape:
    """The sizes that the tensors of one checkpoint must have."""

    embedding: int
    feed_forward: int
    blocks: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool  # the output matrix is the token embedding

    @classmethod
    def of(cls, config: Config, family: Family) -> "Shape":
        """Read the sizes from config.json, with the defaults that transformers gives to absent keys."""
        embedding, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
        shape = cls(
            embedding=embedding,
            feed_forward=config.integer("intermediate_size"),
            blocks=config.integer("num_hidden_layers"),
            heads=heads,
            kv_heads=config.integer("num_key_value_heads", heads),
            head_dim=config.integer("head_dim", 128 if family.name == "qwen3" else max(embedding // heads, 1)),
            vocab=config.integer("vocab_size"),
            tied=bool(config.values.get("tie_word_embeddings", False)),
        )
        if shape.heads % shape.kv_heads or shape.head_dim % 2:
            raise InputError(
                f"{config.directory}/config.json: {shape.heads} heads do not divide into {shape.kv_heads} "
                f"key-value heads of {shape.head_dim} (an even number)"
            )
        return shape


def add_hyperparameters(writer: GGUFWriter, config: Config, family: Family, file_type: int) -> None:
    """Add the architecture's keys to `writer`. `file_type` is the llama_ftype of the source."""
    if (activation := config.values.get("hidden_act", "silu")) not in ("silu", "swish"):
        raise InputError(
            f"{config.directory}/config.json: hidden_act {activation!r}; llama.cpp computes only silu here"
        )
    shape = Shape.of(config, family)
    writer.add_block_count(shape.blocks)
    writer.add_context_length(config.integer("max_position_embeddings", 2048))
    writer.add_embedding_length(shape.embedding)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    rope = rope_parameters(config)
    _add_rope_scaling(writer, config, rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.number("rms_norm_eps", 1e-6))
    if family.head_dim or config.values.get("head_dim") is not None:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    writer.add_file_type(file_type)
    if family.name == "llama":
        writer.add_vocab_size(shape.vocab)
        writer.add_rope_dimension_count(shape.head_dim)


def rope_parameters(config: Config) -> dict[str, object]:
    """Rotary position settings in transformers 5's form, whichever form config.json has; always with rope_theta."""
    given = config.values.get("rope_parameters") or config.values.get("rope_scaling") or {}
    if not isinstance(given, dict):
        raise InputError(f"{config.directory}/config.json: rope_scaling must be an object, not {given!r}")
    rope = dict(given)
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("rope_theta", config.number("rope_theta", 10000.0))
    if "original_max_position_embeddings" not in rope:
        # transformers 5 takes the trained length of the checkpoint where the scaling does not name one
        rope["original_max_position_embeddings"] = config.values.get(
            "original_max_position_embeddings", config.integer("max_position_embeddings", 2048)
        )
    return rope


def _add_rope_scaling(writer: GGUFWriter, config: Config, rope: dict[str, object]) -> None:
    kind = rope["rope_type"]
    try:
        if kind in ("linear", "yarn"):
            writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
            writer.add_rope_scaling_factor(float(rope["factor"]))  # type: ignore[arg-type]
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))  # type: ignore[call-overload]
            for key, add in (
                ("extrapolation_factor", writer.add_rope_scaling_yarn_ext_factor),
                ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
                ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
                ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
            ):
                if rope.get(key) is not None:
                    add(float(rope[key]))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{config.directory}/config.json: {kind} rope scaling lacks a valid {error}") from error
    # "dynamic" only acts beyond the trained context length, which llama.cpp does not follow (nor does its converter)
    if kind not in ("default", "linear", "yarn", "llama3", "dynamic"):
        raise InputError(f"{config.directory}/config.json: rope scaling {kind!r} is not known for this architecture")


def rope_factors(config: Config, head_dim: int) -> FloatArray | None:
    """The divisors of the rotary frequencies that llama3 scaling asks for: f32 (head_dim / 2); None for other scalings.

    Source: transformers' modeling_rope_utils._compute_llama3_parameters, evaluated in f32 like llama.cpp's converter.
    """
    rope = rope_parameters(config)
    if rope["rope_type"] != "llama3":
        return None
    try:
        factor, low, high, trained = (
            float(rope.get(key, default))  # type: ignore[arg-type]
            for key, default in (
                ("factor", 8.0),
                ("low_freq_factor", 1.0),
                ("high_freq_factor", 4.0),
                ("original_max_position_embeddings", 8192),
            )
        )
        base = np.float32(rope["rope_theta"])  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"{config.directory}/config.json: llama3 rope scaling: {error}") from error
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    wavelengths = np.float32(2 * math.pi) / (np.float32(1) / base**exponents)
    smooth = (np.float32(trained) / wavelengths - np.float32(low)) / np.float32(high - low)
    blended = 1 / ((1 - smooth) / np.float32(factor) + smooth)
    return np.where(wavelengths < trained / high, 1.0, np.where(wavelengths > trained / low, factor, blended)).astype(
        np.float32
    )


def lazy_tensors(config: Config, family: Family, stored: dict[str, StoredTensor]) -> list[LazyTensor]:
    """The checkpoint's tensors under their GGUF names, embedding first, then block by block.

    Raises InputError for a tensor that is missing, unknown, of the wrong shape or of no plain float type.
    """
    shape = Shape.of(config, family)
    wanted = _tensor_table(shape, family)
    rest = {name: tensor for name, tensor in stored.items() if not name.endswith(".rotary_emb.inv_freq")}
    tensors = []
    for source_name, (name, dims, required) in wanted.items():
        tensor = rest.pop(source_name, None)
        if tensor is not None:
            tensors.append(_lazy_tensor(tensor, name, dims, _permuted_heads(name, shape, family)))
        elif required:
            raise InputError(
                f"{config.directory}: tensor {source_name} is missing from the checkpoint; a shard was not downloaded, "
                "or config.json belongs to another model"
            )
    if shape.tied:  # transformers ignores a stored output matrix where the embeddings are tied
        rest.pop("lm_head.weight", None)
    if rest:
        raise InputError(
            f"{config.directory}: {len(rest)} tensors do not belong to {config.architecture} ({min(rest)}, ...); "
            "merge adapters into the model first, or convert with llama.cpp's own converter and give its GGUF"
        )
    if (factors := rope_factors(config, shape.head_dim)) is not None:
        tensors.insert(0, constant_tensor("rope_freqs.weight", factors))
    return tensors


def constant_tensor(name: str, values: FloatArray) -> LazyTensor:
    """A small computed vector as a tensor."""
    return LazyTensor(name, values.shape, "F32", lambda first, last: values[np.newaxis][first:last].copy())


def _tensor_table(shape: Shape, family: Family) -> dict[str, tuple[str, tuple[int, ...], bool]]:
    """Hugging Face name -> (GGUF name, shape, required), in the order in which the GGUF holds them."""
    width, q_width, kv_width = shape.embedding, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    linears = {
        "self_attn.q_proj": ("attn_q", (q_width, width), True),
        "self_attn.k_proj": ("attn_k", (kv_width, width), True),
        "self_attn.v_proj": ("attn_v", (kv_width, width), True),
        "self_attn.o_proj": ("attn_output", (width, q_width), family.linear_biases),
        "mlp.gate_proj": ("ffn_gate", (shape.feed_forward, width), family.linear_biases),
        "mlp.up_proj": ("ffn_up", (shape.feed_forward, width), family.linear_biases),
        "mlp.down_proj": ("ffn_down", (width, shape.feed_forward), family.linear_biases),
    }
    norms = {"input_layernorm": ("attn_norm", width), "post_attention_layernorm": ("ffn_norm", width)}
    if family.head_norms:
        norms |= {
            "self_attn.q_norm": ("attn_q_norm", shape.head_dim),
            "self_attn.k_norm": ("attn_k_norm", shape.head_dim),
        }
    table: dict[str, tuple[str, tuple[int, ...], bool]] = {
        "model.embed_tokens.weight": ("token_embd.weight", (shape.vocab, width), True)
    }
    for block in range(shape.blocks):
        source, target = f"model.layers.{block}", f"blk.{block}"
        for norm, (name, size) in norms.items():
            table[f"{source}.{norm}.weight"] = (f"{target}.{name}.weight", (size,), True)
        for linear, (name, dims, may_have_bias) in linears.items():
            table[f"{source}.{linear}.weight"] = (f"{target}.{name}.weight", dims, True)
            if may_have_bias:
                table[f"{source}.{linear}.bias"] = (f"{target}.{name}.bias", dims[:1], False)
    table["model.norm.weight"] = ("output_norm.weight", (width,), True)
    if not shape.tied:
        table["lm_head.weight"] = ("output.weight", (shape.vocab, width), True)
    return table


def _permuted_heads(name: str, shape: Shape, family: Family) -> int | None:
    """How many heads' rows must be reordered for llama.cpp, or None."""
    if family.permuted and ".attn_q." in name:
        return shape.heads
    if family.permuted and ".attn_k." in name:
        return shape.kv_heads
    return None


def _lazy_tensor(tensor: StoredTensor, name: str, dims: tuple[int, ...], heads: int | None) -> LazyTensor:
    if tensor.dtype not in FLOAT_DTYPES:
        raise InputError(
            f"{tensor.path}: {tensor.name} is {tensor.dtype}: start from full precision (BF16, F16 or F32 weights)"
        )
    if tensor.shape != dims:
        raise InputError(
            f"{tensor.path}: {tensor.name} is {list(tensor.shape)}, config.json wants {list(dims)}; "
            "take both from the same model"
        )
    if heads is None:
        return LazyTensor(name, dims, tensor.dtype, lambda first, last: tensor.read_rows(slice(first, last)))
    order = interleaved_rows(dims[0], heads)
    if len(dims) == 1:  # a bias is one row, reordered within
        return LazyTensor(name, dims, tensor.dtype, lambda first, last: tensor.read_rows(slice(first, last))[:, order])
    return LazyTensor(name, dims, tensor.dtype, lambda first, last: tensor.read_rows(order[first:last]))


def interleaved_rows(n_rows: int, heads: int) -> np.ndarray:
    """Where each row of llama.cpp's q or k matrix lies in transformers': int64 (n_rows).

    transformers pairs row i of a head with row i + half for the rotation, llama.cpp pairs neighbours.
    """
    return np.arange(n_rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
