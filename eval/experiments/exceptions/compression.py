"""What a compressor still finds in each kind of stored bytes: TCQ blocks, 8-bit residuals, indices (zstd -19).

    python -m eval.experiments.exceptions.compression ../shared/models/golf-88m

If it finds nothing, comparisons at equal bytes hold after compression as well. Four matrices of a middle layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import zstandard
from numpy.typing import NDArray

from gguf_golf.encode import Guidance, open_encoder
from gguf_golf.formats import quant_types
from gguf_golf.models import open_model
from gguf_golf.runtime import ggml

from .bench import BASES

WEIGHTS = ("attn_q", "attn_output", "ffn_up", "ffn_down")
CHOSEN = 0.01
"""Of all weights, for the index of single weights."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--layer", default=5, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(model: Path, layer: int, threads: int) -> None:
    """Print a Markdown table."""
    encoder = open_encoder("cpu", threads)
    matrices = [open_model(model).tensor(f"blk.{layer}.{name}.weight").load() for name in WEIGHTS]
    click.echo("| bytes of | zstd -19 |\n|---|---|")
    for rate in BASES:
        quant_type = quant_types.get(f"tcq{rate}")
        coded = [encoder.encode(rows, quant_type, Guidance()) for rows in matrices]
        residuals = []
        for rows, data in zip(matrices, coded, strict=True):
            n, k = rows.shape
            residual = rows - ggml.dequantize(quant_type.id, data, n, k, threads)
            scale = np.abs(residual.reshape(-1, 32)).max(1, keepdims=True) / 127
            residuals.append(np.round(residual.reshape(-1, 32) / scale).astype(np.int8))
        _line(f"tcq{rate}", coded)
        _line("its residual on a grid of 8 bits, scales aside", residuals)
    chosen = np.flatnonzero(np.random.default_rng(0).random(sum(rows.size for rows in matrices)) < CHOSEN)
    gaps = np.diff(chosen, prepend=0)
    _line("distances between single weights, two bytes each", [gaps.astype("<u2")])


def _line(name: str, arrays: Sequence[NDArray[Any]]) -> None:
    data = b"".join(array.tobytes() for array in arrays)
    click.echo(f"| {name} | {len(zstandard.compress(data, 19)) / len(data):.3f} |")


if __name__ == "__main__":
    main()
