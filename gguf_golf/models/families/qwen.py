"""Qwen2 and Qwen3, dense."""

from collections.abc import Mapping
from typing import ClassVar

from gguf_golf.models.families.decoder import Decoder
from gguf_golf.models.families.registry import register


@register("Qwen2ForCausalLM")
class Qwen2(Decoder):
    """q, k and v with biases."""

    architecture = "qwen2"
    attention_biases = ("q_proj", "k_proj", "v_proj")
    writes_head_dim = False


@register("Qwen3ForCausalLM")
class Qwen3(Decoder):
    """Norms over heads in the place of biases."""

    architecture = "qwen3"
    head_norms = True
    attention_biases = ("q_proj", "k_proj", "v_proj")
    defaults: ClassVar[Mapping[str, object]] = {"head_dim": 128}
