"""Models of real shapes with random weights, for measuring speed, which does not depend on what the weights are."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats import quant_types, tcq


@dataclass(frozen=True)
class Shape:
    """A Llama-like model: its sizes, as in config.json."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden // self.heads

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Every matrix by its GGUF name, as (rows, row length)."""
        found = {"token_embd.weight": (self.vocabulary, self.hidden)}
        if not self.tied:
            found["output.weight"] = (self.vocabulary, self.hidden)
        for i in range(self.layers):
            kv = self.kv_heads * self.head_dim
            found[f"blk.{i}.attn_q.weight"] = (self.hidden, self.hidden)
            found[f"blk.{i}.attn_k.weight"] = (kv, self.hidden)
            found[f"blk.{i}.attn_v.weight"] = (kv, self.hidden)
            found[f"blk.{i}.attn_output.weight"] = (self.hidden, self.hidden)
            found[f"blk.{i}.ffn_gate.weight"] = (self.feed_forward, self.hidden)
            found[f"blk.{i}.ffn_up.weight"] = (self.feed_forward, self.hidden)
            found[f"blk.{i}.ffn_down.weight"] = (self.hidden, self.feed_forward)
        return found


SHAPES = {
    "golf-88m": Shape(768, 2048, 12, 12, 4, 16384, tied=True),
    "smollm2-135m": Shape(576, 1536, 30, 9, 3, 49152, tied=True),
    "1b": Shape(2048, 8192, 16, 32, 8, 128256, tied=True),
    "8b": Shape(4096, 14336, 32, 32, 8, 128256, tied=False),
}
"""Real models' shapes; 1b and 8b are Llama 3's."""

FP16_SCALES = {
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q4_k": (0, 2),
    "q5_k": (0, 2),
    "q6_k": (208,),
    "q4_0": (0,),
    "q5_0": (0,),
    "q8_0": (0,),
    "iq4_nl": (0,),
    "iq1_s": (0,),
    "iq2_xxs": (0,),
    "iq2_xs": (0,),
    "iq2_s": (0,),
    "iq3_xxs": (0,),
    "iq3_s": (0,),
    "iq4_xs": (0,),
}
"""Byte offsets of the fp16 scales in a block of mainline's types: random bits there could be infinite."""


def random_blocks(quant_type: quant_types.QuantType, count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """`count` random blocks with a small scale each; shape (count, type_size), uint8."""
    blocks = rng.integers(0, 256, (count, quant_type.type_size), np.uint8)
    if quant_type.tcq:
        blocks[:, -1] = 0x80
    else:
        for offset in FP16_SCALES[quant_type.name]:
            blocks[:, offset : offset + 2] = np.frombuffer(np.float16(1e-3).tobytes(), np.uint8)
    return blocks


def write_model(path: Path, shape: Shape, type_name: str) -> int:
    """Writes the model with every matrix in this type (or its fallback); returns the bytes of its matrices.

    The embedding is not counted where it is not tied: decoding reads one row of it.
    """
    quant_types.register_with_gguf()
    rng = np.random.default_rng(1)
    pools: dict[str, NDArray[np.uint8]] = {}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    writer.add_uint32(tcq.FORMAT_KEY, tcq.FORMAT_VERSION)

    read = 0
    plan = []
    for name, (rows, length) in shape.matrices().items():
        quant_type, _ = quant_types.type_for_row(type_name, length)
        row_bytes = quant_type.row_bytes(length)
        read += rows * row_bytes if shape.tied or name != "token_embd.weight" else 0
        ggml_type = gguf.GGMLQuantizationType(quant_type.id)
        writer.add_tensor_info(name, (rows, row_bytes), np.dtype(np.uint8), rows * row_bytes, ggml_type)
        plan.append((quant_type, rows * (length // quant_type.block_size)))
    norms = ["output_norm"] + [f"blk.{i}.{n}" for i in range(shape.layers) for n in ("attn_norm", "ffn_norm")]
    ones = np.ones(shape.hidden, np.float32)
    for name in norms:
        writer.add_tensor_info(f"{name}.weight", ones.shape, ones.dtype, ones.nbytes)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for quant_type, count in plan:  # one pool of random blocks a type, repeated
        pool = pools.setdefault(quant_type.name, random_blocks(quant_type, 1 << 16, rng))
        writer.write_tensor_data(np.resize(pool, (count, quant_type.type_size)))
    for _ in norms:
        writer.write_tensor_data(ones)
    writer.close()
    return read
