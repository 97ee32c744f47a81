"""Llama and Mistral."""

from gguf import GGUFWriter

from gguf_golf.models.families.decoder import Decoder
from gguf_golf.models.families.registry import register

ALL_FOUR = ("q_proj", "k_proj", "v_proj", "o_proj")


@register("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM")
class Llama(Decoder):
    """llama.cpp's "llama"."""

    architecture = "llama"
    permuted = True
    attention_biases = ALL_FOUR
    mlp_biases = True

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        super().add_hyperparameters(writer, file_type)
        writer.add_vocab_size(self.sizes.vocab)
        writer.add_rope_dimension_count(self.sizes.head_dim)
