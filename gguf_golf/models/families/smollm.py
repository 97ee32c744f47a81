"""SmolLM3: Llama without rotary positions in every fourth layer."""

from collections.abc import Mapping
from typing import ClassVar

from gguf_golf.errors import InputError
from gguf_golf.models.families.decoder import Window
from gguf_golf.models.families.llama import Llama
from gguf_golf.models.families.registry import register

STEP = 4
"""Which layers lack rotary positions: llama.cpp reads no key for it."""


@register("SmolLM3ForCausalLM")
class SmolLM3(Llama):
    """llama.cpp's "smollm3"."""

    architecture = "smollm3"
    rope_frequencies = False
    attention_biases = ("q_proj", "k_proj", "v_proj")
    mlp_biases = False
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
    }

    def check(self) -> None:
        super().check()
        rotary = [int((block + 1) % STEP != 0) for block in range(self.sizes.blocks)]
        step = self.config.integer("no_rope_layer_interval", STEP)
        given = self.config.get("no_rope_layers") or [int((i + 1) % step != 0) for i in range(self.sizes.blocks)]
        if given != rotary:
            raise InputError(
                f"{self.config.directory}/config.json: no_rope_layers is {given}; llama.cpp's smollm3 leaves out "
                f"rotary positions in every {STEP}th layer, whatever a file says"
            )
        if self.config.get("attention_bias", False) or self.config.get("mlp_bias", False):
            raise InputError(f"{self.config.directory}/config.json: biases; llama.cpp's smollm3 has none")

    def window(self) -> Window | None:
        kinds = self.config.get("layer_types") or []
        size, in_use = self.config.get("sliding_window"), self.config.get("use_sliding_window", False)
        if not in_use or size is None:
            return None
        return Window(self.config.integer("sliding_window"), tuple(kind == "sliding_attention" for kind in kinds))
