"""Qwen2 and Qwen3, dense."""

from collections.abc import Mapping
from typing import ClassVar

from gguf_golf.errors import InputError
from gguf_golf.models.families.decoder import Decoder, Window
from gguf_golf.models.families.registry import register


@register("Qwen2ForCausalLM")
class Qwen2(Decoder):
    """q, k and v with biases."""

    architecture = "qwen2"
    attention_biases = ("q_proj", "k_proj", "v_proj")
    attention_bias = True
    writes_head_dim = False

    sliding_architecture = "granite_swa"
    defaults: ClassVar[Mapping[str, object]] = {"max_position_embeddings": 32768, "num_key_value_heads": 32}

    def window(self) -> Window | None:
        """Where windows are in use, they are those of the last layers, or of those that layer_types names."""
        config, blocks = self.config, self.sizes.blocks
        size, first = config.get("sliding_window", 4096), config.get("max_window_layers", 28)
        kinds = config.get("layer_types") or ["sliding_attention" if i >= first else "" for i in range(blocks)]
        if not config.get("use_sliding_window", False) or size is None:
            return None
        return Window(config.integer("sliding_window", 4096), tuple(kind == "sliding_attention" for kind in kinds))


@register("Qwen3ForCausalLM")
class Qwen3(Qwen2):
    """Norms over heads in the place of biases."""

    architecture = "qwen3"
    attention_bias = False
    head_norms = True
    writes_head_dim = True
    defaults: ClassVar[Mapping[str, object]] = {**Qwen2.defaults, "head_dim": 128}

    def check(self) -> None:
        super().check()
        if self.config.get("attention_bias", False):  # it gives the output projection one too
            raise InputError(
                f"{self.config.directory}/config.json: attention_bias; llama.cpp's {self.architecture} has no biases"
            )
