"""How much more a whole TCQ block costs for one weight of a given size: the `costs` of gguf_golf/formats/tcq.py.

    python eval/experiments/tcq_marginal_cost.py [BLOCKS]

Gaussian blocks with extra large weights are encoded; the errors of whole blocks, in squared level units, are regressed
on how many targets (after slots) lie in each bin of |x|. A weight's own error would not do: at the ends of the range a
weight can be met exactly, but only by forcing the path of its neighbours.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats import quant_types, tcq
from gguf_golf.runtime import ggml

BIN = 8
"""Level units."""


def marginal_cost(rate: int, n_blocks: int, seed: int = 5) -> NDArray[np.float64]:
    """Cost at |x| = 0, 8, .., 64 level units, in units of the squared rms / 4^rate."""
    rng = np.random.default_rng(seed)
    fmt = quant_types.TCQ_FORMATS[f"tcq{rate}"]
    rows = rng.standard_normal((n_blocks, 256)).astype(np.float32)
    rows[:, ::8] = rng.uniform(0, 72 / float(tcq.RATES[rate].level_rms), (n_blocks, 32)) * rng.choice(
        (-1, 1), (n_blocks, 32)
    )
    data = ggml.quantize(quant_types.get(f"tcq{rate}").id, rows)
    levels = np.array(tcq.LEVELS[rate])[tcq.level_indices(fmt, data)]
    scale = tcq.block_scales(fmt, data).astype(float)[:, None]
    target = rows / scale - (tcq.integer_weights(fmt, data) - levels)
    knots = np.arange(0, 80, BIN)
    # piecewise linear: each weight counts for the two knots around it
    at = np.clip(np.abs(target) / BIN, 0, len(knots) - 1.001)
    low, part = at.astype(int), at - at.astype(int)
    design = np.stack([((low == k) * (1 - part) + (low == k - 1) * part).sum(1) for k in range(len(knots))], axis=1)
    total = np.square(target - levels).sum(1)
    cost, *_ = np.linalg.lstsq(design, total, rcond=None)
    return cost[:9] / (float(tcq.RATES[rate].level_rms) ** 2 / 4.0**rate)


if __name__ == "__main__":
    for rate in tcq.RATES:
        row = marginal_cost(rate, int(sys.argv[1]) if len(sys.argv) > 1 else 16000)
        print(f"rate {rate}: " + ", ".join(f"{value:.2f}" for value in row), flush=True)
