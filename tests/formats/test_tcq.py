"""The NumPy reference against a second decoder, written from the specification weight by weight, and against C."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.formats import header, quant_types, tcq
from gguf_golf.runtime import ggml

FORMATS = list(quant_types.TCQ_FORMATS.items())
GOLDEN = Path(__file__).parents[1] / "golden"


def spec_decode(rate: int, block_size: int, block: bytes) -> list[float]:
    """One block straight from the specification in docs/formats.md: whole numbers and loops, no NumPy."""
    n_bytes = block_size // 8
    path = int.from_bytes(block[:n_bytes], "little")
    lo = block[n_bytes : rate * n_bytes]
    weights = [0] * block_size
    for time in range(block_size):
        index = 0
        for p, generator in enumerate((0o124, 0o160, 0o272, 0o753)):
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
            index |= (lo[byte] >> bit & 1) << (4 + b)
        weights[n_bytes * k + y] = tcq.LEVELS[rate][index]
    s, least = spec_side(rate, block_size, int.from_bytes(block[rate * n_bytes :], "little"), weights)
    exponent, mantissa = s >> 3, s & 7
    scale = ((8 + mantissa) << (exponent - 1) if exponent else mantissa) * least
    return [scale * w for w in weights]


def spec_side(rate: int, block_size: int, side: int, weights: list[int]) -> tuple[int, float]:
    """Adds the slots to the weights; returns the bits of the scale and the least scale above zero."""
    sigma = tcq.RATES[rate].level_rms
    if block_size == 256:
        gap1, gap2 = side >> 8 & 127, side >> 15 & 127
        at = [side & 255, (side + gap1) & 255, (side + gap1 + gap2) & 255]
        signs = [-1 if side >> bit & 1 else 1 for bit in (22, 23, 24)]
        if gap1 == 0:
            weights[at[0]] += signs[0] * round((8 if signs[1] == 1 else 24) * sigma)
            weights[at[2]] += signs[2] * round(3 * sigma)
        elif gap2 == 0:
            for slot in range(2):
                weights[at[slot]] += signs[slot] * round((8 if signs[2] == 1 else 24) * sigma)
        else:
            for slot in range(3):
                weights[at[slot]] += signs[slot] * round(3 * sigma)
        return side >> 25, 2.0**-21
    sign = -1 if side >> 7 & 1 else 1
    weights[side & 63] += sign * round((8 if side >> 6 & 1 else 3) * sigma)
    return side >> 8, 2.0**-29


def random_blocks(fmt: tcq.TcqFormat, n: int, seed: int) -> NDArray[np.uint8]:
    """Random bytes; in one block of 256 weights out of four, at least one gap is 0."""
    blocks = np.random.default_rng(seed).integers(0, 256, (n, fmt.type_size), np.uint8)
    if fmt.block_size == 256:
        blocks[: n // 6, fmt.slot_offset + 1] &= 0x80  # gap 1: the low 7 bits of this byte
        blocks[n // 8 : n // 4, fmt.slot_offset + 1] &= 0x7F  # gap 2: its top bit and 6 of the next
        blocks[n // 8 : n // 4, fmt.slot_offset + 2] &= 0xC0
    return blocks


@pytest.mark.parametrize(("name", "fmt"), FORMATS)
def test_decodes_as_specified(name: str, fmt: tcq.TcqFormat) -> None:
    blocks = random_blocks(fmt, 96, seed=2)
    for block, got in zip(blocks, tcq.dequantize(fmt, blocks), strict=True):
        assert got.tolist() == spec_decode(fmt.rate, fmt.block_size, block.tobytes())


@pytest.mark.parametrize("rate", tcq.RATES)
def test_slots_meet_as_specified(rate: int) -> None:
    """Every way in which gaps of 0 make great values, positions wrapping around."""
    fmt = tcq.TcqFormat(rate, 256)
    for gaps in ((0, 0), (0, 100), (100, 0), (100, 100)):
        for signs in range(8):
            side = 250 | gaps[0] << 8 | gaps[1] << 15 | signs << 22 | 77 << 25
            block = bytes(fmt.slot_offset) + side.to_bytes(4, "little")
            got = tcq.dequantize(fmt, np.frombuffer(block, np.uint8)[None])[0]
            assert got.tolist() == spec_decode(rate, 256, block)


@pytest.mark.parametrize(("name", "fmt"), FORMATS)
def test_c_equals_numpy_bit_for_bit_on_random_bytes(name: str, fmt: tcq.TcqFormat) -> None:
    blocks = random_blocks(fmt, 4000, seed=1)
    got = ggml.dequantize(quant_types.TCQ[name].id, blocks, len(blocks), fmt.block_size)
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
        assert len(levels) == 16 << (rate - 1)
        assert list(levels) == sorted(levels)
        assert list(levels) == [-level for level in reversed(levels)]
        assert 60 <= max(levels) <= tcq.MAX_LEVEL


def test_scales_are_the_fp16_of_their_bits_shifted_by_seven() -> None:
    for block_size, n, factor in ((256, 128, 2.0**-4), (64, 31 << 3, 2.0**-12)):
        scales = tcq.scales(tcq.TcqFormat(1, block_size))
        as_half = (np.arange(n, dtype=np.uint16) << 7).view(np.float16).astype(np.float32)
        assert np.array_equal(scales[:n], as_half * np.float32(factor))
        assert scales[0] == 0
        assert (np.diff(scales) > 0).all()


def test_the_c_header_is_current() -> None:
    assert header.HEADER.read_text(encoding="utf-8") == header.render(), (
        "run `python -m gguf_golf.formats.header` after changing the constants"
    )
