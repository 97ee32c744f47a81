"""TCQ: the format's constants and its NumPy decoder, the reference that every other decoder is tested against.

What the bytes mean is specified in docs/formats.md. This file is not fast and does not encode.
All constants live here once; `header.py`, `layout_header.py` and `kernel_header.py` write them into C headers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GENERATORS = (0o224, 0o142, 0o577)
"""One 9-bit generator per parity; bit b taps the path bit of b steps ago (bit 0 = the newest)."""

MEMORY = 8
"""Trellis memory in path bits: 256 states."""

MAX_LEVEL = 63
"""What the SIMD kernels are made for: 64 + level fits an unsigned byte whose products with int8 cannot saturate."""


@dataclass(frozen=True)
class Rate:
    """All that a rate decides: adding one is adding a row to RATES.

    `levels[z0 | z1 << 1 | z2 << 2 | lo << 3]` are int8, |level| <= MAX_LEVEL, in units of the block scale. `slots` are
    the magnitudes that a 4-bit slot of a 256-block adds, by its bits 0-2 (bit 3 is the sign); `slots_64` those that the
    one slot of a 64-block adds, by bit 6 of the slot byte (bit 7 is the sign). `fallback` is the stock type that takes
    rows which 64 does not divide.

    The encoder alone uses `peak`, the largest level over the rms of the Gaussian weights that the levels are made for,
    and `costs`: how much more a whole block costs for one weight of |x| = 0, 8, .. 64 level units, in units of the mean
    squared error (measured on Gaussians, eval/experiments/tcq_marginal_cost.py).
    """

    levels: tuple[int, ...]
    slots: tuple[int, ...]
    slots_64: tuple[int, ...]
    peak: float
    costs: tuple[float, ...]
    fallback: str

    @property
    def level_rms(self) -> np.float32:
        """The rms of those Gaussian weights, in level units."""
        return np.float32(MAX_LEVEL) / np.float32(self.peak)


# fmt: off
RATES: dict[int, Rate] = {
    1: Rate(
        levels=(
            -63, -30, -23, -7, 10, 18, 31, 63,
        ),
        slots=(83, 125, 166, 249, 374, 581, 913, 1494),
        slots_64=(125, 332),
        peak=1.518,
        costs=(0.16, 0.11, 0.16, 0.33, 0.64, 0.96, 1.34, 1.89, 1.81),
        fallback="q4_0",
    ),
    2: Rate(
        levels=(
            -62, -41, -33, -23, -19, -12, -7, -3, 3, 7, 13, 19, 25, 33, 42, 63,
        ),
        slots=(58, 88, 117, 175, 263, 409, 642, 1051),
        slots_64=(88, 234),
        peak=2.158,
        costs=(0.12, 0.13, 0.37, 0.78, 1.20, 1.90, 3.10, 4.09, 3.71),
        fallback="q4_0",
    ),
    3: Rate(
        levels=(
            -63, -48, -39, -34, -29, -25, -23, -19, -16, -14, -11, -9, -6, -6, -3, -1, 1, 3, 5, 7, 10, 12, 14, 16, 20,
            22, 25, 28, 33, 38, 48, 63,
        ),
        slots=(47, 70, 93, 140, 210, 327, 513, 840),
        slots_64=(70, 187),
        peak=2.699,
        costs=(0.02, 0.17, 0.65, 1.05, 1.99, 3.49, 4.46, 7.92, 4.81),
        fallback="q4_0",
    ),
    4: Rate(
        levels=(
            -62, -50, -43, -38, -34, -31, -29, -27, -25, -23, -22, -21, -19, -18, -17, -16, -14, -14, -13, -11, -10, -9,
            -9, -8, -6, -6, -5, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 11, 11, 13, 14, 15, 16, 17, 18, 20,
            21, 22, 24, 25, 27, 29, 31, 34, 38, 44, 51, 63,
        ),
        slots=(40, 60, 80, 120, 180, 280, 440, 721),
        slots_64=(60, 160),
        peak=3.147,
        costs=(0.12, 0.38, 0.65, 1.24, 2.62, 5.11, 6.13, 13.39, 6.94),
        fallback="q5_0",
    ),
    5: Rate(
        levels=(
            -61, -52, -46, -42, -39, -36, -35, -33, -31, -30, -29, -28, -27, -26, -25, -24, -24, -23, -22, -21, -21,
            -20, -19, -19, -18, -18, -17, -16, -16, -15, -15, -14, -14, -13, -13, -12, -12, -11, -11, -10, -10, -9, -9,
            -8, -8, -8, -7, -7, -6, -6, -5, -5, -5, -4, -4, -3, -3, -2, -2, -2, -1, -1, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3,
            4, 4, 5, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 16, 16, 17, 17,
            18, 19, 19, 20, 21, 21, 22, 23, 24, 24, 25, 26, 27, 28, 29, 30, 31, 33, 34, 36, 39, 42, 47, 53, 63,
        ),
        slots=(36, 55, 73, 109, 164, 254, 400, 654),
        slots_64=(55, 145),
        peak=3.468,
        costs=(0.23, 0.63, 0.67, 1.33, 2.67, 6.01, 11.06, 18.37, 15.61),
        fallback="q8_0",
    ),
}
# fmt: on
"""By bits per weight, scales and slots aside."""

# the same by column, as the decoder and the generated headers take them
LEVELS = {rate: row.levels for rate, row in RATES.items()}
SLOT_MAGNITUDES = {rate: row.slots for rate, row in RATES.items()}
SLOT_MAGNITUDES_64 = {rate: row.slots_64 for rate, row in RATES.items()}


@dataclass(frozen=True)
class TcqFormat:
    """One type of the family: a rate (a key of RATES) in one of the two packings, blocks of 256 or of 64 weights.

    A block is path (block_size / 8 bytes), lo bits ((rate - 1) * block_size / 8 bytes), slots, and one scale byte.
    """

    rate: int
    block_size: int

    @property
    def lo_offset(self) -> int:
        """Byte offset of the lo bits: the path comes first, one bit per weight."""
        return self.block_size // 8

    @property
    def slot_offset(self) -> int:
        """Byte offset of the slots."""
        return self.rate * self.block_size // 8

    @property
    def scale_offset(self) -> int:
        """Byte offset of the e5m3 scale, the last byte of the block."""
        return self.type_size - 1

    @property
    def type_size(self) -> int:
        """Bytes per block: 256-blocks have 3 slot bytes (two positions, two nibbles), 64-blocks have one."""
        return self.slot_offset + (4 if self.block_size == 256 else 2)


def e5m3_scales() -> NDArray[np.float32]:
    """The 256 scales by scale byte s: e = s >> 3, m = s & 7; (8 + m) 2^(e-30), or m 2^-29 where e = 0. All exact."""
    s = np.arange(256)
    exponent, mantissa = s >> 3, s & 7
    scales = np.where(exponent > 0, np.ldexp(8.0 + mantissa, exponent - 30), np.ldexp(mantissa, -29))
    return np.asarray(scales, np.float32)


def chain_order(block_size: int) -> NDArray[np.int64]:
    """order[i] = the weight that chain time i belongs to; shape (block_size,).

    Bit k of path byte y is time 8y + k and belongs to weight (block_size / 8) k + y: bit k of all bytes together
    are consecutive weights, which is what lets a decoder work on whole bytes.
    """
    time = np.arange(block_size)
    return (block_size // 8) * (time % 8) + time // 8


def subset_table() -> NDArray[np.uint8]:
    """subset[w] = z0 | z1 << 1 | z2 << 2 for a window w of 9 path bits (bit b = the path bit of b steps ago)."""
    window = np.arange(1 << (MEMORY + 1), dtype=np.uint64)
    parities = [np.bitwise_count(window & np.uint64(g)) & 1 for g in GENERATORS]
    return np.asarray(parities[0] | parities[1] << 1 | parities[2] << 2, np.uint8)


def lo_bit_positions(fmt: TcqFormat) -> NDArray[np.int64]:
    """Where bit b of weight j's lo bits is stored, at [j, b], in bits from lo_offset; shape (block_size, rate - 1).

    The bits lie in planes of one or two bits per weight, arranged so that the kernels reach them with one shift and
    one mask beside the parities that they are joined with.
    """
    bytes_per_bit = fmt.block_size // 8
    weight = np.arange(fmt.block_size)
    k, y = weight // bytes_per_bit, weight % bytes_per_bit

    def paired(start: int) -> NDArray[np.int64]:
        """A plane of two bits per weight, from byte `start` on."""
        if fmt.block_size == 256:
            low = 8 * (start + 32 * (k >> 2) + y) + 2 * ((k & 3) ^ 1)
        else:
            low = 8 * (start + 8 * (k & 1) + y) + np.array((4, 0, 6, 2))[k >> 1]
        return np.stack((low, low + 1), axis=1)

    interleaved = (8 * y + 4 * (k & 1) + 3 - (k >> 1))[:, None]
    planes: list[NDArray[np.int64]]
    match fmt.rate, fmt.block_size:
        case 1, _:
            planes = [np.empty((fmt.block_size, 0), np.int64)]
        case 2, _:
            planes = [interleaved]
        case 3, _:
            planes = [paired(0)]
        case 4, 256:
            planes = [paired(0), (8 * (64 + y) + k)[:, None]]
        case 4, _:
            planes = [interleaved, paired(bytes_per_bit)]
        case _:
            planes = [paired(0), paired(2 * bytes_per_bit)]
    return np.concatenate(planes, axis=1)


def level_indices(fmt: TcqFormat, blocks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Level index of every weight; blocks is (n, type_size) uint8, the result (n, block_size)."""
    bits = np.unpackbits(blocks, axis=1, bitorder="little").astype(np.int64)
    path = bits[:, : fmt.block_size]
    window = np.zeros_like(path)
    for b in range(MEMORY + 1):
        window |= np.roll(path, b, axis=1) << b
    by_time = subset_table()[window].astype(np.int64)
    index = np.empty_like(by_time)
    index[:, chain_order(fmt.block_size)] = by_time
    for b, position in enumerate(lo_bit_positions(fmt).T):
        index |= bits[:, 8 * fmt.lo_offset + position] << (3 + b)
    return index


def integer_weights(fmt: TcqFormat, blocks: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Levels plus slots, in units of the block scale; blocks is (n, type_size) uint8, the result (n, block_size)."""
    weights = np.array(LEVELS[fmt.rate], np.int32)[level_indices(fmt, blocks)]
    rows = np.arange(len(blocks))
    slots = blocks[:, fmt.slot_offset : fmt.scale_offset].astype(np.int64)
    if fmt.block_size == 256:
        magnitudes = np.array(SLOT_MAGNITUDES[fmt.rate], np.int32)
        for position, nibble in ((slots[:, 0], slots[:, 2] & 15), (slots[:, 1], slots[:, 2] >> 4)):
            weights[rows, position] += np.where(nibble & 8, -1, 1).astype(np.int32) * magnitudes[nibble & 7]
    else:
        magnitudes = np.array(SLOT_MAGNITUDES_64[fmt.rate], np.int32)
        slot = slots[:, 0]
        weights[rows, slot & 63] += np.where(slot & 128, -1, 1).astype(np.int32) * magnitudes[(slot >> 6) & 1]
    return weights


def dequantize(fmt: TcqFormat, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Weights of blocks (n, type_size) uint8 as (n, block_size) float32; exact: every product fits a float32."""
    scale = e5m3_scales()[blocks[:, fmt.scale_offset]]
    return scale[:, None] * integer_weights(fmt, blocks).astype(np.float32)
