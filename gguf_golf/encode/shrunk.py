"""What is known of an expert's inputs, shrunk towards its siblings' where calibration gave it few tokens.

An expert's inputs are like those of its siblings in the same layer, and a few tokens say little about hundreds of
channels: the fewer there are, the more the siblings' average says (James and Stein 1961; for covariances Ledoit and
Wolf 2004). An expert that was never chosen has nothing but its siblings.
"""

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.hessian import Hessians
from gguf_golf.calibrate.imatrix import Imatrix

NOISE = 8.0
"""Variance of x^2 relative to its squared mean, for one token: 2 for normal activations, which have longer tails."""

WIDEST = 4.0
"""Bound on how different experts can be, as a variance relative to the squared mean: no tokens are believed alone."""


def importance(imatrix: Imatrix, weight: str) -> NDArray[np.float32]:
    """E[x^2] of a weight's inputs, f32 [n_experts, k]. Raises InputError if the imatrix does not know the weight.

    With n tokens, an expert's own mean counts n, and the mean of all experts counts NOISE / (how much experts differ)
    tokens. A weight that no token reached at all has ones.
    """
    own = imatrix.importance(weight)
    counts = np.broadcast_to(imatrix.entries[weight].counts.reshape(-1, 1), (len(own), 1)).astype(np.float64)
    if len(own) == 1 or not counts.any():
        return own
    siblings = (counts * own).sum(0) / counts.sum()
    siblings = np.where(siblings > 0, siblings, siblings.mean() or 1.0)
    reached = counts[:, 0] > 0
    scale = np.ones_like(counts)
    scale[reached] = own[reached].mean(1, keepdims=True, dtype=np.float64) / siblings.mean()
    target = scale * siblings
    differences = np.square(own[reached] / target[reached] - 1).mean(1) - NOISE / counts[reached, 0]
    between = float(np.clip((counts[reached, 0] @ differences) / counts.sum(), NOISE / counts.sum(), WIDEST))
    weighted = counts * own * reached[:, None] + (NOISE / between) * target
    shrunk: NDArray[np.float32] = (weighted / (counts + NOISE / between)).astype(np.float32)
    return shrunk


def hessian(hessians: Hessians, weight: str, expert: int) -> NDArray[np.float64] | None:
    """E[x x^T] f64 [k, k] of an expert's inputs; None where no token reached any expert.

    With n tokens, an expert's own Hessian counts n, and the sum of all experts' counts k tokens: a Hessian of k
    channels takes as many tokens before it is of full rank.
    """
    own = hessians.get(weight, expert)
    n_experts, k = hessians.shape(weight)
    counts = hessians.counts(weight)
    if n_experts == 1 or counts[expert] >= ENOUGH * k or not counts.any():
        return own
    siblings = hessians.pooled(weight)
    if own is None:
        return siblings
    trace = float(np.trace(own)) / (float(np.trace(siblings)) or 1.0)
    n = float(counts[expert])
    mixed: NDArray[np.float64] = (n * own + k * trace * siblings) / (n + k)
    return mixed


ENOUGH = 32
"""Tokens per channel from which an expert's own Hessian needs no siblings."""
