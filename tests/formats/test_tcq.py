"""The NumPy reference against a second decoder, written from the specification weight by weight, and against C."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_golf.formats import header, tcq, types
from gguf_golf.runtime import ggml

FORMATS = list(types.TCQ_FORMATS.items())
GOLDEN = Path(__file__).parents[1] / "golden"


def spec_decode(rate: int, block_size: int, block: bytes) -> list[float]:
    """One block straight from the specification in docs/formats.md: whole numbers and loops, no NumPy."""
    n_bytes = block_size // 8
    path = int.from_bytes(block[:n_bytes], "little")
    lo = block[n_bytes : rate * n_bytes]
    weights = [0] * block_size
    for time in range(block_size):
        index = 0
        for p, generator in enumerate((0o224, 0o142, 0o577)):
            for b in range(9):
                if generator >> b & 1:
                    index ^= (path >> ((time - b) % block_size) & 1) << p
        k, y = time % 8, time // 8
        low_bits = []
        if block_size == 256:
            pair = (32 * (k >> 2) + y, 2 * ((k & 3) ^ 1))
            single = (y, 4 * (k & 1) + 3 - (k >> 1))
            low_bits = {
                1: [],
                2: [single],
                3: [pair, (pair[0], pair[1] + 1)],
                4: [pair, (pair[0], pair[1] + 1), (64 + y, k)],
                5: [pair, (pair[0], pair[1] + 1), (64 + pair[0], pair[1]), (64 + pair[0], pair[1] + 1)],
            }[rate]
        else:
            pair = (8 * (k & 1) + y, (4, 0, 6, 2)[k >> 1])
            single = (y, 4 * (k & 1) + 3 - (k >> 1))
            low_bits = {
                1: [],
                2: [single],
                3: [pair, (pair[0], pair[1] + 1)],
                4: [single, (8 + pair[0], pair[1]), (8 + pair[0], pair[1] + 1)],
                5: [pair, (pair[0], pair[1] + 1), (16 + pair[0], pair[1]), (16 + pair[0], pair[1] + 1)],
            }[rate]
        for b, (byte, bit) in enumerate(low_bits):
            index |= (lo[byte] >> bit & 1) << (3 + b)
        weights[n_bytes * k + y] = tcq.LEVELS[rate][index]
    tail = block[rate * n_bytes :]
    if block_size == 256:
        for position, nibble in ((tail[0], tail[2] & 15), (tail[1], tail[2] >> 4)):
            weights[position] += (-1 if nibble & 8 else 1) * tcq.SLOT_MAGNITUDES[rate][nibble & 7]
    else:
        sign = -1 if tail[0] & 128 else 1
        weights[tail[0] & 63] += sign * tcq.SLOT_MAGNITUDES_64[rate][tail[0] >> 6 & 1]
    exponent, mantissa = tail[-1] >> 3, tail[-1] & 7
    scale = (8 + mantissa) * 2.0 ** (exponent - 30) if exponent else mantissa * 2.0**-29
    return [scale * w for w in weights]


@pytest.mark.parametrize(("name", "fmt"), FORMATS)
@given(data=st.data())
def test_decodes_as_specified(name: str, fmt: tcq.TcqFormat, data: st.DataObject) -> None:
    block = data.draw(st.binary(min_size=fmt.type_size, max_size=fmt.type_size))
    got = tcq.dequantize(fmt, np.frombuffer(block, np.uint8)[None])[0]
    assert got.tolist() == spec_decode(fmt.rate, fmt.block_size, block)


@pytest.mark.parametrize(("name", "fmt"), FORMATS)
def test_c_equals_numpy_bit_for_bit_on_random_bytes(name: str, fmt: tcq.TcqFormat) -> None:
    blocks = np.random.default_rng(1).integers(0, 256, (4000, fmt.type_size), np.uint8)
    got = ggml.dequantize(types.TCQ[name].id, blocks, len(blocks), fmt.block_size)
    assert np.array_equal(got.view(np.uint32), tcq.dequantize(fmt, blocks).view(np.uint32))


@pytest.mark.parametrize(("name", "fmt"), FORMATS)
def test_golden_blocks_keep_their_meaning(name: str, fmt: tcq.TcqFormat) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    assert golden["blocks"].shape[1] == fmt.type_size
    assert np.array_equal(tcq.integer_weights(fmt, golden["blocks"]), golden["integers"])
    assert np.array_equal(tcq.dequantize(fmt, golden["blocks"]), golden["weights"])


@pytest.mark.parametrize(("name", "fmt"), FORMATS)
def test_every_bit_of_a_block_has_one_place(name: str, fmt: tcq.TcqFormat) -> None:
    assert sorted(tcq.lo_bit_positions(fmt).ravel().tolist()) == list(range(fmt.block_size * (fmt.rate - 1)))
    assert sorted(tcq.chain_order(fmt.block_size).tolist()) == list(range(fmt.block_size))


def test_levels_are_sorted_and_leave_room_for_a_bias_of_64() -> None:
    for rate, levels in tcq.LEVELS.items():
        assert len(levels) == 8 << (rate - 1)
        assert list(levels) == sorted(levels)
        assert max(map(abs, levels)) == 63


def test_scales_are_the_fp16_of_the_byte_shifted_by_seven() -> None:
    s = np.arange(0, 31 << 3)
    as_half = (s.astype(np.uint16) << 7).view(np.float16).astype(np.float32)
    assert np.array_equal(tcq.e5m3_scales()[s], as_half * np.float32(2.0**-12))
    assert tcq.e5m3_scales()[0] == 0
    assert (np.diff(tcq.e5m3_scales()) > 0).all()


def test_the_c_header_is_current() -> None:
    assert header.HEADER.read_text(encoding="utf-8") == header.render(), (
        "run `python -m gguf_golf.formats.header` after changing the constants"
    )
