"""Mixtures of experts: Qwen3-MoE and Mixtral. Each projection's experts become one tensor (experts, rows, cols)."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models.aqlm import matrix
from gguf_golf.models.config import Config
from gguf_golf.models.families.decoder import Window
from gguf_golf.models.families.llama import Llama
from gguf_golf.models.families.qwen import Qwen3
from gguf_golf.models.families.registry import register
from gguf_golf.models.model import LazyTensor
from gguf_golf.models.rows import Rows, lazy, rows_of, stacked
from gguf_golf.models.weights import Weights

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@register("Qwen3MoeForCausalLM")
class Qwen3Moe(Qwen3):
    """Qwen3 with experts in every layer; llama.cpp always normalizes the weights of the chosen ones."""

    architecture = "qwen3moe"
    defaults: ClassVar[Mapping[str, object]] = {"max_position_embeddings": 32768, "num_key_value_heads": 4}

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.expert_width = self.config.integer("moe_intermediate_size", 768)
        self.n_experts = self.config.integer("num_experts", self.config.integer("num_local_experts", 128))
        self.n_used = self.config.integer("num_experts_per_tok", 8)

    def check(self) -> None:
        super().check()
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
        width = self.sizes.embedding
        yield lazy(weights.take(f"{source}.gate.weight", (self.n_experts, width)), f"{target}.ffn_gate_inp.weight")
        yield from expert_tensors(
            experts(weights, f"{source}.experts", self.n_experts, width, self.expert_width), target
        )

    def add_expert_counts(self, writer: GGUFWriter) -> None:
        writer.add_expert_count(self.n_experts)
        writer.add_expert_used_count(self.n_used)

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        super().add_hyperparameters(writer, file_type)
        writer.add_expert_feed_forward_length(self.expert_width)


@register("MixtralForCausalLM")
class Mixtral(Llama):
    """Llama with experts in every layer."""

    attention_biases = ()
    mlp_biases = False
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.n_experts = self.config.integer("num_local_experts", self.config.integer("num_experts", 8))
        self.n_used = self.config.integer("num_experts_per_tok", 2)

    def window(self) -> Window | None:
        if self.config.get("sliding_window") is None:
            return None
        return Window(self.config.integer("sliding_window"), (True,) * self.sizes.blocks)

    def feed_forward(self, weights: Weights, source: str, target: str) -> Iterator[LazyTensor]:
        width, hidden, n = self.sizes.embedding, self.sizes.feed_forward, self.n_experts
        names = PROJECTIONS
        if f"{source}.gate.weight" not in weights:  # the published names
            source, names = source.removesuffix("mlp") + "block_sparse_moe", ("w1", "w3", "w2")
        yield lazy(weights.take(f"{source}.gate.weight", (n, width)), f"{target}.ffn_gate_inp.weight")
        yield from expert_tensors(experts(weights, f"{source}.experts", n, width, hidden, names), target)

    def add_expert_counts(self, writer: GGUFWriter) -> None:
        writer.add_expert_count(self.n_experts)
        writer.add_expert_used_count(self.n_used)


def expert_tensors(matrices: tuple[Rows, Rows, Rows], target: str) -> Iterator[LazyTensor]:
    """Gate, up and down of all experts of a layer under their GGUF names."""
    for rows, projection in zip(matrices, ("gate", "up", "down"), strict=True):
        yield lazy(rows, f"{target}.ffn_{projection}_exps.weight")


def experts(
    weights: Weights, source: str, n: int, width: int, hidden: int, names: tuple[str, str, str] = PROJECTIONS
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
        stacked([matrix(weights, f"{source}.{i}.{name}", shape) for i in range(n)])
        for name, shape in zip(names, shapes, strict=True)
    )
    return gate, up, down
