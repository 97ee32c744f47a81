"""Gemma 3, text alone: norms around attention and MLP, and a sliding window with its own rotary base in most layers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models import rope
from gguf_golf.models.families.decoder import Decoder, Window
from gguf_golf.models.families.registry import register
from gguf_golf.models.model import FloatArray
from gguf_golf.models.rows import Rows, mapped
from gguf_golf.models.weights import Weights

PATTERN = 6
"""Every sixth layer attends to everything, unless config.json says otherwise."""


@dataclass(frozen=True)
class OnePlus:
    """Gemma's norms multiply by 1 + weight; `scale` multiplies on top."""

    scale: float = 1.0

    def __call__(self, values: FloatArray) -> FloatArray:
        return (1 + values) * self.scale


@register("Gemma3ForCausalLM")
class Gemma3(Decoder):
    """llama.cpp's "gemma3"."""

    architecture = "gemma3"
    head_norms = True
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 256,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "rope_theta": 1e6,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
        "vocab_size": 262208,
    }

    def read_rope(self) -> rope.Rope:
        """The rotary positions of the layers that attend to everything; those of the others have a base alone."""
        config = self.config
        nested = config.get("rope_parameters") or {}
        local = nested.get("sliding_attention") or {}
        given = nested.get("full_attention") or {} | (config.get("rope_scaling") or {})
        self.local_rope = rope.of(config, local, config.number("rope_local_base_freq", 10000.0))
        if self.local_rope.kind != "default":
            raise InputError(f"{config.directory}/config.json: rope scaling in the layers with a sliding window")
        return rope.of(config, given, config.number("rope_theta", 1e6))

    def check(self) -> None:
        config, where = self.config, f"{self.config.directory}/config.json"
        activation = config.get("hidden_activation", config.get("hidden_act", "gelu_pytorch_tanh"))
        if activation not in ("gelu_pytorch_tanh", "gelu_new"):
            raise InputError(
                f"{where}: hidden_activation {activation!r}; llama.cpp computes only gelu_pytorch_tanh here"
            )
        for key in ("attn_logit_softcapping", "use_bidirectional_attention", "attention_bias"):
            if config.get(key):
                raise InputError(f"{where}: {key}; llama.cpp's gemma3 has nothing like it")
        config.get("cache_implementation")

    def check_window(self) -> Window | None:
        """llama.cpp applies Gemma's window itself."""
        return None

    def attention_pattern(self) -> list[bool]:
        """Which layers have the sliding window."""
        kinds, step = self.config.get("layer_types"), self.config.get("sliding_window_pattern", PATTERN)
        if kinds is not None:
            return [kind == "sliding_attention" for kind in kinds]
        return [(block + 1) % step != 0 for block in range(self.sizes.blocks)]

    def norms(self) -> list[tuple[str, str, int]]:
        width, head_dim = self.sizes.embedding, self.sizes.head_dim
        return [
            ("input_layernorm", "attn_norm", width),
            ("self_attn.q_norm", "attn_q_norm", head_dim),
            ("self_attn.k_norm", "attn_k_norm", head_dim),
            ("post_attention_layernorm", "post_attention_norm", width),
            ("pre_feedforward_layernorm", "ffn_norm", width),
            ("post_feedforward_layernorm", "post_ffw_norm", width),
        ]

    def norm(self, weights: Weights, name: str, size: int) -> Rows:
        return mapped(super().norm(weights, name, size), OnePlus(self.query_scale() if "q_norm" in name else 1.0))

    def query_scale(self) -> float:
        """What makes llama.cpp's scale of attention, 1 / sqrt(head length), the checkpoint's."""
        sizes = self.sizes
        assumed = sizes.embedding // sizes.heads if sizes.blocks == 62 else sizes.head_dim
        return math.sqrt(assumed / self.config.number("query_pre_attn_scalar", 256.0))

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        super().add_hyperparameters(writer, file_type)
        writer.add_rope_freq_base_swa(self.local_rope.theta)
        pattern = self.attention_pattern()
        if any(pattern):
            writer.add_sliding_window(self.config.integer("sliding_window", 4096))
            if pattern != [(block + 1) % PATTERN != 0 for block in range(len(pattern))]:
                writer.add_sliding_window_pattern(pattern)
        if softcap := self.config.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(float(softcap))
