"""Decode and prefill speed of TCQ and mainline types on a GPU, on models of real shapes and random weights.

    python eval/gpu_bench.py --bin BUILD/bin --work /dev/shm/bench --out gpu.json

Needs llama-bench of a runtime built for the GPU (`gguf-golf runtime build --cuda`), and disk (best in memory) for the
largest model of one shape in all its types: 21 GB for 8b. Weights are random bits with sane scales: speed does not
depend on their values. Types where 256 does not divide the rows become what `--type` would make of them.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from gguf_golf.formats import types


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
    "8b": Shape(4096, 14336, 32, 32, 8, 128256, tied=False),
}
TYPES = ("tcq2", "q2_k", "tcq3", "q3_k", "tcq4", "q4_k")

FP16_SCALES = {
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q4_k": (0, 2),
    "q4_0": (0,),
    "q5_0": (0,),
    "q8_0": (0,),
    "iq4_nl": (0,),
}
"""Byte offsets of the fp16 scales in a block of mainline's types: random bits there could be infinite."""


def random_blocks(quant_type: types.QuantType, count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """`count` random blocks with a small scale each; shape (count, type_size), uint8."""
    blocks = rng.integers(0, 256, (count, quant_type.type_size), np.uint8)
    if quant_type.name in types.TCQ:
        blocks[:, -1] = 0x80
    else:
        for offset in FP16_SCALES[quant_type.name]:
            blocks[:, offset : offset + 2] = np.frombuffer(np.float16(1e-3).tobytes(), np.uint8)
    return blocks


def write_model(path: Path, shape: Shape, type_name: str) -> int:
    """Writes the model with every matrix in this type (or its fallback); returns the bytes of its matrices.

    The embedding is not counted where it is not tied: decoding reads one row of it.
    """
    types.register_with_gguf()
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

    read = 0
    plan = []
    for name, (rows, length) in shape.matrices().items():
        quant_type, _ = types.type_for_row(type_name, length)
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


def run_bench(binary: Path, model: Path, prompt: int, generate: int) -> tuple[float, float, str]:
    """One llama-bench run: tokens/s of prefill and of decoding (medians of its repetitions), and the GPU's name."""
    command = [binary, "-m", model, "-p", str(prompt), "-n", str(generate), "-r", "5", "-ngl", "99", "-o", "json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    speed = {row["n_gen"] > 0: statistics.median(row["samples_ts"]) for row in rows}
    return speed[False], speed[True], rows[0]["gpu_info"]


def main() -> None:
    """Parses the arguments, benchmarks every shape and type in interleaved rounds, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="folder of llama-bench")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models")
    parser.add_argument("--out", type=Path, required=True, help="JSON of all results")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--copy-rate", type=float, help="the card's copy rate in TB/s, bytes read plus bytes written")
    args = parser.parse_args()

    args.work.mkdir(parents=True, exist_ok=True)
    results = []
    for shape in args.shapes:
        paths = {name: args.work / f"{shape}-{name}.gguf" for name in args.types}
        sizes = {name: write_model(path, SHAPES[shape], name) for name, path in paths.items()}
        runs: dict[str, list[tuple[float, float, str]]] = {name: [] for name in args.types}
        for _ in range(args.rounds):
            for name in args.types:
                runs[name].append(run_bench(args.bin / "llama-bench", paths[name], args.prompt, args.generate))
        for name in args.types:
            prefill, decode = (statistics.median(run[i] for run in runs[name]) for i in (0, 1))
            rate = decode * sizes[name] / 1e12
            share = f"{rate / args.copy_rate:7.1%}" if args.copy_rate else ""
            print(
                f"{shape:14} {name:6} {sizes[name] / 1e6:8.1f} MB  decode {decode:8.1f} tok/s  "
                f"weights {rate:6.3f} TB/s {share}  prefill {prefill:9.1f} tok/s  {runs[name][0][2]}",
                flush=True,
            )
            results.append({"shape": shape, "type": name, "bytes": sizes[name], "decode": decode, "prefill": prefill,
                            "runs": runs[name]})  # fmt: skip
            paths[name].unlink()
        args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
