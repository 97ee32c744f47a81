"""Question: what does the rounding of activations to 8 bits cost, where, and does its E predict it?

The undisturbed model runs with the inputs of its linear layers rounded in place as Q8_K (one scale for 256) or Q8_0
(for 32) would round them: all, and one kind of input at a time. Beside it, what the sensitivity file predicts.

    python eval/experiments/activation_rounding.py BASE.gguf SENSITIVITY.json TEXT --chunks 3
"""

import ctypes
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from gguf_golf.runtime.abi import GgmlTensor
from gguf_golf.runtime.tensor import op_name, view
from gguf_golf.sensitivity import result
from gguf_golf.sensitivity.probe import Probe
from gguf_golf.sensitivity.rounding import SCALE_SPANS, rounded


def tensor_at(pointer: int) -> GgmlTensor:
    """The node that a callback is asked about."""
    return ctypes.cast(pointer, ctypes.POINTER(GgmlTensor)).contents


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("sensitivity", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--chunks", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(base: Path, sensitivity: Path, text: Path, chunks: int, threads: int) -> None:
    """Print KLD by activation type and kind of input, measured and predicted."""
    known = {tensor.name: tensor for tensor in result.read(sensitivity).tensors}
    input_of: dict[str, str] = {}

    def learn(chunk: int, pointer: int, ask: bool) -> bool:
        node = tensor_at(pointer)
        weight = node.src[0].contents.name.decode() if node.src[0] else ""
        if ask and op_name(node.op) == b"MUL_MAT" and weight in known:
            input_of[weight] = node.src[1].contents.name.decode()
        return False

    spans: dict[str, int] = {}

    def round_in_place(pointer: int, ask: bool, _: Any) -> bool:
        node = tensor_at(pointer)
        span = spans.get(node.name.decode())
        if span is None:
            return False
        if not ask:
            x = view(node, np.float32)[0, 0]
            x[:] = rounded(np.ascontiguousarray(x), span)
        return True

    with (
        tempfile.TemporaryDirectory() as folder,
        Probe(base, text, n_ctx=512, n_chunks=chunks, scratch=Path(folder) / "base", threads=threads) as probe,
    ):
        probe.run_base(learn)
        probe._context = probe._model.context(512, threads=threads, cb_eval=round_in_place)
        kinds = defaultdict(list)
        for weight, source in input_of.items():
            kinds["all"].append(weight)
            kinds[source.rstrip("-0123456789")].append(weight)
        for activation, span in SCALE_SPANS.items():
            for name, weights in kinds.items():
                spans.clear()
                spans.update({input_of[weight]: span for weight in weights})
                predicted = sum(known[w].coefficient * known[w].rounding[activation] for w in weights)
                print(f"{activation} {name:12} measured {probe.kld().mean():.6f} predicted {predicted:.6f}", flush=True)


if __name__ == "__main__":
    main()
