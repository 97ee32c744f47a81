"""A decoder-only transformer with rotary attention and a gated MLP: what most open models are.

Names, order of keys and values are those of llama.cpp's own converter (conversion/base.py of the pinned source). A
family says in its own module how it differs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models import aqlm, rope
from gguf_golf.models.checkpoint import StoredTensor
from gguf_golf.models.config import Config
from gguf_golf.models.model import LazyTensor
from gguf_golf.models.rows import Rows, columns_of, constant, lazy, rows_of
from gguf_golf.models.weights import Weights, same_values

NO_SINK = -1e30
MAX_HEAD_DIM = 1 << 16


@dataclass(frozen=True)
class Sizes:
    """The sizes that the tensors of one checkpoint must have."""

    embedding: int
    feed_forward: int
    blocks: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def of(cls, config: Config) -> "Sizes":
        """Read the sizes from config.json. Raises InputError where heads do not divide."""
        embedding, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
        sizes = cls(
            embedding=embedding,
            feed_forward=config.integer("intermediate_size"),
            blocks=config.integer("num_hidden_layers"),
            heads=heads,
            kv_heads=config.integer("num_key_value_heads", heads),
            head_dim=config.integer("head_dim", max(embedding // heads, 1)),
            vocab=config.integer("vocab_size"),
        )
        if sizes.head_dim > MAX_HEAD_DIM:
            raise InputError(f"{config.directory}/config.json: head_dim {sizes.head_dim} is not that of any model")
        if sizes.heads % sizes.kv_heads or sizes.head_dim % 2:
            raise InputError(
                f"{config.directory}/config.json: {sizes.heads} heads do not divide into {sizes.kv_heads} "
                f"key-value heads of {sizes.head_dim} (an even number)"
            )
        return sizes


@dataclass(frozen=True)
class Window:
    """How many of the last tokens the layers marked in `layers` attend to, themselves included."""

    size: int
    layers: tuple[bool, ...]


class Decoder:
    """The common part; the class attributes are what most families differ in."""

    architecture: str
    sliding_architecture: str = ""
    """The architecture of llama.cpp that computes the same with a sliding window, if there is one."""
    permuted: bool = False
    """llama.cpp rotates neighbouring pairs of this architecture's heads, transformers rotates halves."""
    head_norms: ClassVar[bool] = False
    """RMS norms over each head of q and k."""
    attention_biases: ClassVar[tuple[str, ...]] = ()
    """The projections of attention that have a bias where config.json says attention_bias."""
    attention_bias: ClassVar[bool] = False
    """They have one whatever config.json says."""
    mlp_biases: ClassVar[bool] = False
    """The MLP's projections have a bias where config.json says mlp_bias."""
    rope_frequencies: ClassVar[bool] = False
    """llama.cpp reads rope_freqs.weight for this architecture."""
    writes_head_dim: ClassVar[bool] = True
    """Whether the length of a head is written where config.json does not name it."""
    quantizations: ClassVar[tuple[str, ...]] = (aqlm.METHOD,)
    """Values of quantization_config.quant_method that this class reads."""
    defaults: ClassVar[Mapping[str, object]] = {}
    """What transformers takes for keys that config.json lacks, where it differs between families."""

    def __init__(self, config: Config) -> None:
        self.config = config.with_defaults(self.defaults)
        self.sizes = Sizes.of(self.config)
        self.tied = bool(self.config.get("tie_word_embeddings", False))
        self.rope = self.read_rope()
        self.check()
        self.sliding = self.check_window()
        if self.sliding is not None:
            self.architecture, self.permuted = self.sliding_architecture, True

    def read_rope(self) -> rope.Rope:
        """The rotary positions of all layers."""
        return rope.read(self.config)

    def check(self) -> None:
        """Raises InputError for what llama.cpp does not compute for this architecture."""
        if self.rope.needs_frequencies and not self.rope_frequencies:
            raise InputError(
                f"{self.config.directory}/config.json: {self.rope.kind} rope scaling with these settings; llama.cpp's "
                f"{self.architecture} knows only linear scaling and YaRN with the default betas and truncation"
            )
        kinds = self.config.values.get("layer_types")
        for kind in kinds if isinstance(kinds, list) else []:
            if kind not in ("full_attention", "sliding_attention"):
                raise InputError(
                    f"{self.config.directory}/config.json: layer_types has {kind!r:.50}; llama.cpp's "
                    f"{self.architecture} has nothing like it"
                )
        if (activation := self.config.get("hidden_act", "silu")) not in ("silu", "swish"):
            raise InputError(
                f"{self.config.directory}/config.json: hidden_act {activation!r}; llama.cpp computes only silu here"
            )

    def window(self) -> Window | None:
        """The sliding window of some or all layers, if there is one."""
        return None

    def check_window(self) -> Window | None:
        """The window, if it is shorter than the context. Raises InputError where llama.cpp cannot apply it."""
        window, context = self.window(), self.config.integer("max_position_embeddings", 2048)
        if window is None or window.size >= context or not any(window.layers):
            return None
        if self.head_norms or not self.sliding_architecture:
            raise InputError(
                f"{self.config.directory}/config.json: layers attend to the last {window.size} of {context} tokens, "
                f"which llama.cpp does not do for {self.architecture}; set max_position_embeddings to {window.size} "
                "for a file that is right up to there"
            )
        self.config.note(
            f"layers attend to the last {window.size} tokens only, which llama.cpp does not do for "
            f"{self.architecture}: the file's architecture is {self.sliding_architecture}, whose layers are the same "
            "with a window"
        )
        return window

    def tensors(self, weights: Weights) -> Iterator[LazyTensor]:
        """The checkpoint's tensors under their GGUF names, embedding first, then block by block.

        Raises InputError for a tensor that is missing, unknown, of the wrong shape or of no plain float type.
        """
        if (divisors := self.rope.frequency_divisors(self.sizes.head_dim)) is not None:
            yield lazy(constant(divisors), "rope_freqs.weight")
        embedding = weights.take("model.embed_tokens.weight", (self.sizes.vocab, self.sizes.embedding))
        yield lazy(embedding, "token_embd.weight")
        for block in range(self.sizes.blocks):
            yield from self.block(weights, f"model.layers.{block}", f"blk.{block}")
        yield lazy(self.norm(weights, "model.norm", self.sizes.embedding), "output_norm.weight")
        if (head := self.head(weights, embedding)) is not None:
            yield lazy(head, "output.weight")
        weights.finish()

    def head(self, weights: Weights, embedding: StoredTensor) -> StoredTensor | None:
        """The output matrix; None where it is the embedding."""
        name = "lm_head.weight"
        if name not in weights and (self.tied or weights.is_base):
            return None
        head = weights.take(name, embedding.shape)
        if not self.tied:
            return head
        if same_values(head, embedding):
            return None
        self.config.note(
            "config.json says that the embeddings are tied, but the checkpoint stores another lm_head.weight; "
            "it is the output matrix, as in transformers 5"
        )
        return head

    def block(self, weights: Weights, source: str, target: str) -> Iterator[LazyTensor]:
        """One layer: norms, attention, feed-forward."""
        for name, norm, size in self.norms():
            yield lazy(self.norm(weights, f"{source}.{name}", size), f"{target}.{norm}.weight")
        yield from self.attention(weights, f"{source}.self_attn", target)
        if self.sliding is not None:  # granite_swa asks for attention sinks; these weigh nothing
            yield lazy(constant(np.full(self.sizes.heads, NO_SINK, np.float32)), f"{target}.attn_sinks.weight")
        yield from self.feed_forward(weights, f"{source}.mlp", target)

    def norms(self) -> list[tuple[str, str, int]]:
        """(transformers name, GGUF name, length) of each norm of a layer."""
        width, head_dim = self.sizes.embedding, self.sizes.head_dim
        norms = [("input_layernorm", "attn_norm", width), ("post_attention_layernorm", "ffn_norm", width)]
        if self.head_norms:
            norms += [("self_attn.q_norm", "attn_q_norm", head_dim), ("self_attn.k_norm", "attn_k_norm", head_dim)]
        return norms

    def norm(self, weights: Weights, name: str, size: int) -> Rows:
        """A norm's weights as llama.cpp multiplies by them."""
        return weights.take(f"{name}.weight", (size,))

    def attention(self, weights: Weights, source: str, target: str) -> Iterator[LazyTensor]:
        """q, k, v and the output projection, with biases where this family has them."""
        width, heads, kv_heads = self.sizes.embedding, self.sizes.heads, self.sizes.kv_heads
        biased = self.attention_biases if self.attention_bias or self.config.get("attention_bias", False) else ()
        q_width, kv_width = heads * self.sizes.head_dim, kv_heads * self.sizes.head_dim
        for name, projection, shape, rotated_heads in (
            ("q_proj", "attn_q", (q_width, width), heads),
            ("k_proj", "attn_k", (kv_width, width), kv_heads),
            ("v_proj", "attn_v", (kv_width, width), None),
            ("o_proj", "attn_output", (width, q_width), None),
        ):
            order = interleaved_rows(shape[0], rotated_heads) if self.permuted and rotated_heads else None
            for suffix, rows in linear(weights, f"{source}.{name}", shape, bias=name in biased):
                picked = rows_of if suffix == "weight" else columns_of
                yield lazy(rows if order is None else picked(rows, order), f"{target}.{projection}.{suffix}")

    def feed_forward(self, weights: Weights, source: str, target: str) -> Iterator[LazyTensor]:
        """The gated MLP."""
        width, hidden = self.sizes.embedding, self.sizes.feed_forward
        biased = self.mlp_biases and bool(self.config.get("mlp_bias", False))
        for name, projection, shape in (
            ("gate_proj", "ffn_gate", (hidden, width)),
            ("up_proj", "ffn_up", (hidden, width)),
            ("down_proj", "ffn_down", (width, hidden)),
        ):
            for suffix, rows in linear(weights, f"{source}.{name}", shape, bias=biased):
                yield lazy(rows, f"{target}.{projection}.{suffix}")

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        """Add the architecture's keys to `writer`."""
        config, sizes = self.config, self.sizes
        writer.add_block_count(sizes.blocks)
        writer.add_context_length(config.integer("max_position_embeddings", 2048))
        writer.add_embedding_length(sizes.embedding)
        writer.add_feed_forward_length(sizes.feed_forward)
        writer.add_head_count(sizes.heads)
        writer.add_head_count_kv(sizes.kv_heads)
        self.rope.add_keys(writer)
        writer.add_layer_norm_rms_eps(config.number("rms_norm_eps", 1e-6))
        self.add_expert_counts(writer)
        if self.sliding is not None:
            writer.add_sliding_window(self.sliding.size)
            writer.add_sliding_window_pattern(list(self.sliding.layers))
            writer.add_logit_scale(1.0)
        if self.writes_head_dim or config.get("head_dim") is not None:
            writer.add_key_length(sizes.head_dim)
            writer.add_value_length(sizes.head_dim)
        writer.add_file_type(file_type)

    def add_expert_counts(self, writer: GGUFWriter) -> None:
        """Add how many experts there are and are used; nothing for a dense model."""


def linear(weights: Weights, name: str, shape: tuple[int, int], *, bias: bool) -> Iterator[tuple[str, Rows]]:
    """("weight", matrix), and ("bias", vector) if it has one."""
    yield "weight", aqlm.matrix(weights, name, shape)
    if bias:
        yield "bias", weights.take(f"{name}.bias", shape[:1])


def interleaved_rows(n_rows: int, heads: int) -> npt.NDArray[np.int64]:
    """Where each row of llama.cpp's q or k matrix lies in transformers': int64 (n_rows).

    transformers pairs row i of a head with row i + half for the rotation, llama.cpp pairs neighbours.
    """
    return np.arange(n_rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
