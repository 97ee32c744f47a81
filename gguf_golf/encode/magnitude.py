"""Encoding with a check that the weights are in the type's range: F16 ends at 65504, and so do most types' scales.

A type's relative error does not depend on the magnitude of the rows while their scales are in range. So rows are out of
range if they come back far worse than the same rows times a power of two that brings the largest weight to about 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode.encoder import Encoder, round_trip
from gguf_golf.encode.guide import Guidance
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.runtime import ggml

HARMLESS = (2.0**-10, 2.0)
"""While the largest weight is in this interval, every type can hold the rows."""

ENCODABLE = (2.0**-20, 2.0**40)
"""Outside this interval some of ggml's quantizers do not return: no quantized type is tried."""


class OutOfRangeError(Exception):
    """The type cannot hold rows whose largest weight is `peak`."""

    def __init__(self, peak: float) -> None:
        super().__init__(f"weights of {peak:.3g} are out of range")
        self.peak = peak


def encode_in_range(
    encoder: Encoder, rows: NDArray[np.float32], quant_type: QuantType, guidance: Guidance
) -> NDArray[np.uint8]:
    """What `Encoder.encode` returns. Raises OutOfRangeError if the type's range lost the rows, f32 [n, k].

    Costs two passes over the rows; a second encoding only outside HARMLESS. Weights that are too small count as lost
    only where much of the rows is.
    """
    peak = largest(rows)
    if quant_type.is_quantized and not within(peak, ENCODABLE):
        raise OutOfRangeError(peak)
    with np.errstate(over="ignore"):
        data = encoder.encode(rows, quant_type, guidance)
    if within(peak, HARMLESS) or quant_type.name == "f32":
        return data
    stored = ggml.dequantize(quant_type.id, data, len(rows), rows.shape[1], encoder.threads)
    scaled = np.ldexp(rows, -math.frexp(peak)[1])
    expected = _relative_error(scaled, round_trip(encoder, scaled, quant_type, guidance))
    if _relative_error(rows, stored) > 2 * expected + (1e-4 if peak > 1 else 0.05):
        raise OutOfRangeError(peak)
    return data


def largest(rows: NDArray[np.float32]) -> float:
    """max |w|; 0 for no rows."""
    return float(max(rows.max(), -rows.min())) if rows.size else 0.0


def within(peak: float, interval: tuple[float, float]) -> bool:
    """Whether a largest weight is in the interval, or zero, which every type holds."""
    return peak == 0 or interval[0] <= peak <= interval[1]


def _relative_error(rows: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    """Sum of squared errors over that of the rows; infinite where a stored weight is not finite."""
    if not np.isfinite(stored).all():
        return math.inf
    exact = rows.astype(np.float64)
    return float(np.square(exact - stored).sum() / np.square(exact).sum())
