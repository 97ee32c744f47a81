"""Llama and Mistral."""

from collections.abc import Mapping
from typing import ClassVar

from gguf import GGUFWriter

from gguf_golf.models.families.decoder import Decoder, Window
from gguf_golf.models.families.registry import register


@register("LlamaForCausalLM", "LLaMAForCausalLM")
class Llama(Decoder):
    """llama.cpp's "llama"."""

    architecture = "llama"
    permuted = True
    rope_frequencies = True
    attention_biases: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj")
    mlp_biases = True

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        super().add_hyperparameters(writer, file_type)
        writer.add_vocab_size(self.sizes.vocab)
        writer.add_rope_dimension_count(self.sizes.head_dim)


@register("MistralForCausalLM")
class Mistral(Llama):
    """Llama with a sliding window over all layers, unless config.json says that there is none."""

    attention_biases = ()
    mlp_biases = False
    sliding_architecture = "granite_swa"
    defaults: ClassVar[Mapping[str, object]] = {"max_position_embeddings": 131072, "num_key_value_heads": 8}

    def window(self) -> Window | None:
        size = self.config.get("sliding_window", 4096)
        return (
            None if size is None else Window(self.config.integer("sliding_window", 4096), (True,) * self.sizes.blocks)
        )


@register("MinistralForCausalLM")
class Ministral(Mistral):
    """Mistral with the window in some layers."""

    def window(self) -> Window | None:
        size, kinds = self.config.get("sliding_window", 4096), self.config.get("layer_types")
        if size is None:
            return None
        pattern = (True,) * self.sizes.blocks if kinds is None else tuple(kind == "sliding_attention" for kind in kinds)
        return Window(self.config.integer("sliding_window", 4096), pattern)
