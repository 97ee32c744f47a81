"""How much memory calibration and sensitivity take for a model of 8B parameters, made of zeros in a sparse file.

    python eval/experiments/large_model_memory.py make OUT.gguf
    python eval/experiments/large_model_memory.py calibrate OUT.gguf --ctx 512
    python eval/experiments/large_model_memory.py sensitivity OUT.gguf --ctx 64

Shapes and vocabulary size are Llama 3's. `sensitivity` runs the undisturbed model, measures one tensor as the command
does, and exchanges the largest. It prints the most memory that the process had to itself, and the most with the pages
of the mapped file, which the system takes back when it needs them: run it in a control group to see that it does.
"""

import argparse
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from gguf_golf import texts
from gguf_golf.bench.synthetic import SHAPES
from gguf_golf.calibrate.collect import collect
from gguf_golf.models import open_model
from gguf_golf.sensitivity.measuring import Question

SHAPE = SHAPES["8b"]
SLAB = 2048  # rows


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("make", "calibrate", "sensitivity"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--ctx", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.what == "make":
        make(given.model)
        return
    peaks = {"RssAnon": 0, "VmRSS": 0}
    threading.Thread(target=watch, args=(peaks,), daemon=True).start()
    started = time.monotonic()
    if given.what == "calibrate":
        collect(given.model, texts.CALIBRATION, n_ctx=given.ctx, n_chunks=1, threads=given.threads)
    else:
        sensitivity(given)
    own, all_of_it = peaks["RssAnon"], peaks["VmRSS"]
    print(f"{given.what}, {given.ctx} tokens of context: {own / 1e9:.2f} GB of its own, {all_of_it / 1e9:.2f} GB with")
    print(f"pages of a file of {given.model.stat().st_size / 1e9:.1f} GB; {time.monotonic() - started:.0f} s")


def make(out: Path) -> None:
    """A GGUF whose norms are 1 and whose weights are 0: holes of the file."""
    norms = ["output_norm", *(f"blk.{i}.{name}" for i in range(SHAPE.layers) for name in ("attn_norm", "ffn_norm"))]
    shapes = SHAPE.matrices() | {f"{name}.weight": (SHAPE.hidden,) for name in norms}
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_block_count(SHAPE.layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(SHAPE.hidden)
    writer.add_feed_forward_length(SHAPE.feed_forward)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    pieces = [f"<{index}>" for index in range(SHAPE.vocabulary)]
    pieces[:259] = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * SHAPE.vocabulary)
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (SHAPE.vocabulary - 259)])
    for name, shape in shapes.items():
        dtype = np.dtype(np.float32) if len(shape) == 1 else np.dtype(np.uint8)
        stored = shape if len(shape) == 1 else (shape[0], 2 * shape[1])
        raw = None if len(shape) == 1 else gguf.GGMLQuantizationType.BF16
        writer.add_tensor_info(name, stored, dtype, int(np.prod(stored)) * dtype.itemsize, raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    sizes = {name: (4 if len(shape) == 1 else 2) * int(np.prod(shape)) for name, shape in shapes.items()}
    padded = {name: -(-size // 32) * 32 for name, size in sizes.items()}
    with out.open("r+b") as file:
        start = -(-file.seek(0, 2) // 32) * 32
        file.truncate(start + sum(padded.values()))
        for name, shape in shapes.items():
            if len(shape) == 1:
                file.seek(start)
                file.write(np.ones(shape, np.float32).data)
            start += padded[name]


def sensitivity(given: argparse.Namespace) -> None:
    """The parts of `gguf-golf sensitivity` that take memory: a tensor measured, and the largest exchanged."""
    model = open_model(given.model)
    question = Question(given.model, texts.CALIBRATION, None, None, given.ctx, 1, ("tcq2", "q4_k"))
    with tempfile.TemporaryDirectory() as folder, question.measuring(Path(folder) / "s", given.threads) as measuring:
        measuring.measure_tensor(model.tensor("blk.1.attn_k.weight"))

        def slabs() -> Iterator[np.ndarray]:
            for first in range(0, SHAPE.vocabulary, SLAB):
                yield np.full((min(SLAB, SHAPE.vocabulary - first), SHAPE.hidden), 0.01, np.float32)

        with measuring._probe.disturbed("output.weight", slabs()):
            measuring._probe.kld()


def watch(peaks: dict[str, int]) -> None:
    """Keep the highest of these lines of /proc/self/status, in bytes."""
    while True:
        status = Path("/proc/self/status").read_text()
        for name, peak in peaks.items():
            found = re.search(rf"^{name}:\s*(\d+) kB$", status, re.MULTILINE)
            peaks[name] = max(peak, 1024 * int(found[1]) if found else 0)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
