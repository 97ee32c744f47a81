"""Whether weights are too large or too small for a type: F16 ends at 65504, and so do most types' scales.

Types are made for weights around 1, and know no scale: the same rows times a power of two should come back as well.
Where they do not, it is the type's range that fails them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode.encoder import Encoder, round_trip
from gguf_golf.encode.guide import Guidance
from gguf_golf.formats.types import QuantType
from gguf_golf.runtime import ggml

HARMLESS = (2.0**-10, 2.0**12)
"""Largest weights of a tensor that every type can hold: what lies between needs no second look."""


def out_of_range(
    rows: NDArray[np.float32], data: NDArray[np.uint8], quant_type: QuantType, guidance: Guidance, encoder: Encoder
) -> float | None:
    """The largest |w| of rows f32 [n, k] where `data`, their encoding, is far worse than that of rows around 1.

    None where it is not. Costs two passes over the rows, and a second encoding only outside HARMLESS.
    """
    if not rows.size or quant_type.name == "f32":
        return None
    peak = float(max(rows.max(), -rows.min()))
    if peak == 0 or HARMLESS[0] <= peak <= HARMLESS[1]:
        return None
    stored = ggml.dequantize(quant_type.id, data, len(rows), rows.shape[1], encoder.threads)
    error = _relative_error(rows, stored)
    scaled = np.ldexp(rows, -math.frexp(peak)[1])
    expected = _relative_error(scaled, round_trip(encoder, scaled, quant_type, guidance))
    return None if error <= 2 * expected + 1e-4 else peak


def _relative_error(rows: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    """Sum of squared errors over that of the rows; infinite where a stored weight is not finite."""
    if not np.isfinite(stored).all():
        return math.inf
    exact = rows.astype(np.float64)
    return float(np.square(exact - stored).sum() / np.square(exact).sum())
