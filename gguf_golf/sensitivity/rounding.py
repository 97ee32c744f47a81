"""How far llama.cpp moves activations: in products with quantized weights its CPU backend rounds them to 8 bits.

How coarsely, the weight's type decides: one scale for 256 activations (Q8_K), for 64 (TCQ's blocks of 64) or for 32
(Q8_0). Beside a massive
activation all others of its block are rounded as coarsely as it needs. No plan avoids this error, but it is smaller in
some types than in others.
"""

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.hessian import Rows

FloatArray = NDArray[np.float32]

SCALE_SPANS = {"q8_k": 256, "q8_64": 64, "q8_0": 32}
"""Activations that share a scale, by activation type."""


class Rounding:
    """Sums, for each weight, squares of its inputs and of their rounding errors, by channel."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}  # [n_mat, exact and each activation type, k]

    def observe(self, rows: Rows) -> None:
        """Add rows that enter a weight."""
        k = rows.x.shape[1]
        if rows.weight not in self._sums:
            self._sums[rows.weight] = np.zeros((rows.n_mat, 1 + len(SCALE_SPANS), k))
        for i, span in enumerate((None, *SCALE_SPANS.values())):
            if span is None or k % span == 0:
                x = rows.x if span is None else rounded(rows.x, span) - rows.x
                self._sums[rows.weight][rows.mat, i] += np.einsum("ij,ij->j", x, x)

    def errors(self, name: str, weights: FloatArray) -> dict[str, float]:
        """E of rounding the inputs of a weight f32 [n, k], by activation type: sum g (x - x')^2 / sum g x^2.

        g is the squared norm of the input channel's weights, so that it is the same measure as that of distortion.py:
        the relative squared error of the layer's output. Empty for weights that nothing was multiplied with.
        """
        if name not in self._sums:
            return {}
        sums = self._sums[name]
        norms = np.square(weights, dtype=np.float64).reshape(len(sums), -1, weights.shape[1]).sum(1)
        energy, *errors = np.einsum("mk,mik->i", norms, sums).tolist()
        spans = SCALE_SPANS.items()
        return {
            activation: error / energy if energy else 0.0
            for (activation, span), error in zip(spans, errors, strict=True)
            if weights.shape[1] % span == 0
        }


def rounded(x: FloatArray, span: int) -> FloatArray:
    """Activations f32 [n, k] as they come back from 8 bits, with a scale for each `span` of them."""
    blocks = x.reshape(len(x), -1, span)
    scale = np.abs(blocks).max(2, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    result: FloatArray = (np.rint(blocks / scale) * scale).reshape(x.shape)
    return result
