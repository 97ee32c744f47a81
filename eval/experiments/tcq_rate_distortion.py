"""Question: how close do the TCQ types come to the rate-distortion bound, on Gaussians and on real weights?

    python eval/experiments/tcq_rate_distortion.py [MODEL ...]

For each type: dB of signal to noise (mean relative squared error over the linear layers, uniform importance, a few
rows of each) and the gap to 6.02 dB per bit with all bytes counted. 6 dB of gap are one bit per weight.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats import quant_types, tcq
from gguf_golf.models import open_model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable
from gguf_golf.runtime import ggml

ROWS = 12
"""Rows sampled from each layer."""


def sample(path: Path, seed: int = 0) -> list[NDArray[np.float32]]:
    """A few rows of every linear layer."""
    rng = np.random.default_rng(seed)
    layers = []
    for tensor in open_model(path, allow_requantize=True).tensors:
        if is_quantizable(tensor) and tensor.name not in EMBEDDINGS:
            rows = tensor.load()
            layers.append(rows[rng.choice(len(rows), min(ROWS, len(rows)), replace=False)])
    return layers


def signal_to_noise(name: str, layers: list[NDArray[np.float32]]) -> float | None:
    """dB over the layers whose rows (or what of them) the type's blocks divide; None if there is none."""
    kind, fmt = quant_types.get(name), quant_types.TCQ_FORMATS[name]
    relative = []
    for layer in layers:
        rows = layer[:, : layer.shape[1] // kind.block_size * kind.block_size]
        if rows.size:
            data = ggml.quantize(kind.id, rows)
            got = tcq.dequantize(fmt, data.reshape(-1, fmt.type_size)).reshape(rows.shape)
            relative.append(np.square(rows.astype(float) - got).sum() / np.square(rows.astype(float)).sum())
    return float(-10 * np.log10(np.mean(relative))) if relative else None


if __name__ == "__main__":
    gaussian = [np.random.default_rng(0).standard_normal((200, 1024)).astype(np.float32)]
    sources = {"gaussian": gaussian} | {Path(path).name: sample(Path(path)) for path in sys.argv[1:]}
    for name in quant_types.TCQ_FORMATS:
        bpw = quant_types.get(name).bpw
        cells = {label: signal_to_noise(name, layers) for label, layers in sources.items()}
        texts = [f"{label} {db:.2f} gap {6.02 * bpw - db:.2f}" for label, db in cells.items() if db is not None]
        print(f"{name:8s} {bpw:.3f}  " + "  ".join(texts), flush=True)
