"""Whether weights are too large or too small for a type: F16 ends at 65504, and so do most types' scales.

A type's relative error does not depend on the magnitude of the rows while their scales are in range. So rows are out of
range if they come back far worse than the same rows times a power of two that brings the largest weight to about 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode.encoder import Encoder, round_trip
from gguf_golf.encode.guide import Guidance
from gguf_golf.formats.types import QuantType
from gguf_golf.runtime import ggml

HARMLESS = (2.0**-10, 2.0**12)
"""While the largest weight is in this interval, every type can hold the rows."""


def out_of_range(
    rows: NDArray[np.float32], data: NDArray[np.uint8], quant_type: QuantType, guidance: Guidance, encoder: Encoder
) -> float | None:
    """The largest |w| of rows f32 [n, k] if `data`, their encoding, lost them to the range.

    None if it did not. Costs two passes over the rows; outside HARMLESS, a second encoding.
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
