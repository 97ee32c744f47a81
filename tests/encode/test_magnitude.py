"""Weights beyond a type's range are noticed; the interval of harmless magnitudes holds for every type."""

import numpy as np
import pytest

from gguf_golf.encode import Guidance, round_trip
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.encode.magnitude import ENCODABLE, HARMLESS, OutOfRangeError, encode_in_range
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType

ENCODER, GUIDANCE = CpuEncoder(2), Guidance(np.ones(512, np.float32))
STORABLE = [t for t in quant_types.ALL.values() if t.holds_weights and t.is_self_contained]


def rows_up_to(peak: float) -> np.ndarray:
    rows = np.random.default_rng(0).standard_t(3, (4, 512)).astype(np.float32)
    return rows * np.float32(peak / np.abs(rows).max())


@pytest.mark.parametrize("quant_type", STORABLE, ids=lambda t: t.name)
@pytest.mark.parametrize("peak", HARMLESS)
def test_every_type_holds_weights_of_harmless_magnitude(quant_type: QuantType, peak: float) -> None:
    errors = []
    for magnitude in (1, peak):
        rows = rows_up_to(magnitude)
        new = round_trip(ENCODER, rows, quant_type, GUIDANCE)
        errors.append(np.square(rows.astype(float) - new).sum() / np.square(rows.astype(float)).sum())
    assert errors[1] < 2 * errors[0] + (1e-4 if peak > 1 else 0.05)


@pytest.mark.parametrize(
    ("name", "held", "lost"),
    [
        ("f16", 6e4, 7e4),
        ("q8_0", 8e6, 9e6),
        ("q4_0", 5e5, 6e5),
        ("iq4_nl", 5e6, 5e7),
        ("tcq3", 8.0, 1e3),
        ("tcq3_64", 8e3, 1e5),
    ],
)
def test_weights_that_are_too_large_are_noticed(name: str, held: float, lost: float) -> None:
    quant_type, rows = quant_types.get(name), rows_up_to(held)
    data = encode_in_range(ENCODER, rows, quant_type, GUIDANCE)
    np.testing.assert_array_equal(data, ENCODER.encode(rows, quant_type, GUIDANCE))
    with pytest.raises(OutOfRangeError) as caught:
        encode_in_range(ENCODER, rows_up_to(lost), quant_type, GUIDANCE)
    assert caught.value.peak == pytest.approx(lost)


def test_weights_that_would_be_rounded_to_nothing_are_noticed() -> None:
    with pytest.raises(OutOfRangeError):
        encode_in_range(ENCODER, rows_up_to(2e-8), quant_types.get("f16"), GUIDANCE)
    encode_in_range(ENCODER, rows_up_to(1e-30), quant_types.get("bf16"), GUIDANCE)
    encode_in_range(ENCODER, np.zeros((2, 512), np.float32), quant_types.get("q8_0"), GUIDANCE)


@pytest.mark.parametrize("peak", [ENCODABLE[0] / 2, ENCODABLE[1] * 2])
def test_extreme_weights_never_reach_a_quantizer(peak: float) -> None:
    class Untouchable(CpuEncoder):
        def encode(self, *_: object) -> np.ndarray:  # type: ignore[override]
            pytest.fail("ggml was called")

    with pytest.raises(OutOfRangeError):
        encode_in_range(Untouchable(1), rows_up_to(peak), quant_types.get("q8_0"), GUIDANCE)
