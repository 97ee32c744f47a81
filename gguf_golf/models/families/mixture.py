"""Mixtures of experts: Qwen3-MoE. Each projection's experts become one tensor (experts, rows, cols)."""

from collections.abc import Iterator

import numpy as np
from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config
from gguf_golf.models.families.decoder import Decoder, Window
from gguf_golf.models.families.qwen import refuse_output_bias
from gguf_golf.models.families.registry import register
from gguf_golf.models.model import LazyTensor
from gguf_golf.models.rows import Rows, lazy, rows_of, stacked
from gguf_golf.models.weights import Weights


@register("Qwen3MoeForCausalLM")
class Qwen3Moe(Decoder):
    """Qwen3 with experts in every layer; llama.cpp always normalizes the weights of the chosen ones."""

    architecture = "qwen3moe"
    head_norms = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.expert_width = self.config.integer("moe_intermediate_size", 768)
        self.n_experts = self.config.integer("num_experts", self.config.integer("num_local_experts", 128))
        self.n_used = self.config.integer("num_experts_per_tok", 8)

    def check(self) -> None:
        super().check()
        refuse_output_bias(self)
        path = f"{self.config.directory}/config.json"
        if self.config.integer("decoder_sparse_step", 1) != 1 or self.config.get("mlp_only_layers"):
            raise InputError(f"{path}: some layers have no experts; llama.cpp's qwen3moe has them in every layer")
        if not self.config.get("norm_topk_prob", False):
            raise InputError(
                f"{path}: norm_topk_prob is false; llama.cpp's qwen3moe always normalizes the weights of the experts "
                "it chose, and would compute something else"
            )

    def window(self) -> Window | None:
        size, in_use = self.config.get("sliding_window", 4096), self.config.get("use_sliding_window", False)
        if not in_use or size is None:
            return None
        return Window(self.config.integer("sliding_window", 4096), (True,) * self.sizes.blocks)

    def feed_forward(self, weights: Weights, source: str, target: str) -> Iterator[LazyTensor]:
        width, hidden = self.sizes.embedding, self.expert_width
        yield lazy(weights.take(f"{source}.gate.weight", (self.n_experts, width)), f"{target}.ffn_gate_inp.weight")
        gate, up, down = experts(weights, f"{source}.experts", self.n_experts, width, hidden)
        yield lazy(gate, f"{target}.ffn_gate_exps.weight")
        yield lazy(up, f"{target}.ffn_up_exps.weight")
        yield lazy(down, f"{target}.ffn_down_exps.weight")

    def add_expert_counts(self, writer: GGUFWriter) -> None:
        writer.add_expert_count(self.n_experts)
        writer.add_expert_used_count(self.n_used)

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        super().add_hyperparameters(writer, file_type)
        writer.add_expert_feed_forward_length(self.expert_width)


def experts(
    weights: Weights,
    source: str,
    n: int,
    width: int,
    hidden: int,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> tuple[Rows, Rows, Rows]:
    """Gate, up (n, hidden, width) and down (n, width, hidden), stored one matrix per expert or all in one tensor.

    In one tensor, gate and up are fused: (n, 2 * hidden, width), gate first.
    """
    if f"{source}.gate_up_proj" in weights:
        fused = weights.take(f"{source}.gate_up_proj", (n, 2 * hidden, width))
        rows = np.arange(n * 2 * hidden).reshape(n, 2, hidden)
        return (
            rows_of(fused, rows[:, 0]),
            rows_of(fused, rows[:, 1]),
            weights.take(f"{source}.down_proj", (n, width, hidden)),
        )
    shapes = (hidden, width), (hidden, width), (width, hidden)
    gate, up, down = (
        stacked([weights.take(f"{source}.{i}.{name}.weight", shape) for i in range(n)])
        for name, shape in zip(names, shapes, strict=True)
    )
    return gate, up, down
