"""gpt-oss: attention sinks, a sliding window in every other layer, experts with biases, in MXFP4 as published."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models import rope
from gguf_golf.models.config import Config
from gguf_golf.models.families.decoder import Decoder, Window
from gguf_golf.models.families.mixture import expert_tensors
from gguf_golf.models.families.registry import register
from gguf_golf.models.model import LazyTensor
from gguf_golf.models.rows import Rows, columns_of, lazy, mxfp4, rows_of, transposed
from gguf_golf.models.weights import Weights

PATTERN = 2
"""Every second layer attends to everything, unless config.json says otherwise."""

YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""What transformers takes where config.json has no rope settings."""


@register("GptOssForCausalLM")
class GptOss(Decoder):
    """llama.cpp's "gpt-oss"."""

    architecture = "gpt-oss"
    rope_frequencies = True  # by a patch of ours
    quantizations: ClassVar[tuple[str, ...]] = ("mxfp4",)
    attention_biases = ("q_proj", "k_proj", "v_proj", "o_proj")
    defaults: ClassVar[Mapping[str, object]] = {
        "attention_bias": True,
        "head_dim": 64,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "max_position_embeddings": 131072,
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "num_local_experts": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "sliding_window": 128,
        "vocab_size": 201088,
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.n_experts = self.config.integer("num_local_experts", self.config.integer("num_experts", 128))
        self.n_used = self.config.integer("num_experts_per_tok", self.config.integer("experts_per_token", 4))

    def read_rope(self) -> rope.Rope:
        config = self.config
        given = rope.settings(config) or YARN
        config.get("initial_context_length")  # says the same as original_max_position_embeddings
        found = rope.of(config, given, config.number("rope_theta", 150000.0))
        if found.needs_frequencies:
            config.note(
                "YaRN with truncate false takes rope_freqs.weight, which this llama.cpp reads and others do not: "
                "with truncate true in config.json every llama.cpp loads it, and positions turn slightly otherwise"
            )
        return found

    def check(self) -> None:
        super().check()
        for key, value in (("swiglu_alpha", 1.702), ("swiglu_limit", 7.0), ("attention_bias", True)):
            if (given := self.config.get(key, value)) != value:
                raise InputError(
                    f"{self.config.directory}/config.json: {key} is {given}; llama.cpp's gpt-oss computes with {value}"
                )

    def check_window(self) -> Window | None:
        """llama.cpp applies the window of gpt-oss itself."""
        return None

    def norms(self) -> list[tuple[str, str, int]]:
        width = self.sizes.embedding
        return [
            ("input_layernorm", "attn_norm", width),
            ("post_attention_layernorm", "post_attention_norm", width),
        ]

    def attention(self, weights: Weights, source: str, target: str) -> Iterator[LazyTensor]:
        yield from super().attention(weights, source, target)
        yield lazy(weights.take(f"{source}.sinks", (self.sizes.heads,)), f"{target}.attn_sinks.weight")

    def feed_forward(self, weights: Weights, source: str, target: str) -> Iterator[LazyTensor]:
        n, width, hidden = self.n_experts, self.sizes.embedding, self.sizes.feed_forward
        yield lazy(weights.take(f"{source}.router.weight", (n, width)), f"{target}.ffn_gate_inp.weight")
        yield lazy(weights.take(f"{source}.router.bias", (n,)), f"{target}.ffn_gate_inp.bias")
        gate_up = _matrices(weights, f"{source}.experts.gate_up_proj", n, 2 * hidden, width)
        down = _matrices(weights, f"{source}.experts.down_proj", n, width, hidden)
        rows, columns = np.arange(n * 2 * hidden).reshape(n, hidden, 2), np.arange(2 * hidden)  # gate and up alternate
        yield from expert_tensors((rows_of(gate_up, rows[..., 0]), rows_of(gate_up, rows[..., 1]), down), target)
        biases = weights.take(f"{source}.experts.gate_up_proj_bias", (n, 2 * hidden))
        yield lazy(columns_of(biases, columns[::2]), f"{target}.ffn_gate_exps.bias")
        yield lazy(columns_of(biases, columns[1::2]), f"{target}.ffn_up_exps.bias")
        yield lazy(weights.take(f"{source}.experts.down_proj_bias", (n, width)), f"{target}.ffn_down_exps.bias")

    def add_expert_counts(self, writer: GGUFWriter) -> None:
        writer.add_expert_count(self.n_experts)
        writer.add_expert_used_count(self.n_used)

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        super().add_hyperparameters(writer, file_type)
        writer.add_sliding_window(self.config.integer("sliding_window", 128))
        kinds = self.config.get("layer_types")
        pattern = [kind == "sliding_attention" for kind in kinds or []]
        if pattern and pattern != [(block + 1) % PATTERN != 0 for block in range(len(pattern))]:
            writer.add_sliding_window_pattern(pattern)
        writer.add_expert_feed_forward_length(self.sizes.feed_forward)


def _matrices(weights: Weights, name: str, n: int, n_rows: int, n_cols: int) -> Rows:
    """n matrices (n_rows, n_cols): MXFP4 blocks and scales as published, or floats, which lie transposed."""
    if f"{name}_blocks" not in weights:
        return transposed(weights.take(name, (n, n_cols, n_rows)))
    groups = n_cols // 32
    return mxfp4(
        weights.take_bytes(f"{name}_blocks", (n, n_rows, groups, 16)),
        weights.take_bytes(f"{name}_scales", (n, n_rows, groups)),
    )
