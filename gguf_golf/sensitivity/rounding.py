"""How far llama.cpp moves activations: in products with quantized weights its CPU backend rounds them to 8 bits.

How coarsely depends on the weight's type: one scale for 256 activations (Q8_K), for 64 (TCQ's blocks of 64) or for 32
(Q8_0). Beside a massive activation all others of its block are rounded as coarsely as it needs. No plan avoids this
error, but it is smaller in some types than in others.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

SCALE_SPANS = {"q8_k": 256, "q8_64": 64, "q8_0": 32}
"""Activations that share a scale, by activation type."""


def rounded(x: FloatArray, span: int) -> FloatArray:
    """Activations f32 [n, k] as they come back from 8 bits, with a scale for each `span` of them."""
    blocks = x.reshape(len(x), -1, span)
    scale = np.abs(blocks).max(2, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    result: FloatArray = (np.rint(blocks / scale) * scale).reshape(x.shape)
    return result
