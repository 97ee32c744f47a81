"""TCQ: the format's constants and its NumPy decoder, the reference that every other decoder is tested against.

What the bytes mean is specified in docs/formats.md. This file is not fast and does not encode.
All constants live here once; `header.py`, `layout_header.py` and `kernel_header.py` write them into C headers,
`glsl_tables.py` into a GLSL one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FORMAT_KEY, FORMAT_VERSION = "gguf_golf.format", 1
"""The metadata (uint32) of every file that holds a TCQ tensor: any change of what bytes mean raises the version."""

GENERATORS = (0o124, 0o160, 0o272, 0o753)
"""One 9-bit generator per parity; bit b taps the path bit of b steps ago (bit 0 = the newest).

All are of odd weight, so that the complement of a path complements all its parities: with levels mirrored about zero,
the code is symmetric.
"""

N_PARITIES = len(GENERATORS)

MEMORY = 8
"""Trellis memory in path bits: 256 states."""

MAX_LEVEL = 63
"""What the SIMD kernels are made for: 64 + level fits an unsigned byte whose products with int8 cannot saturate."""

SLOT_MULTIPLE, GREAT_MULTIPLES, SLOT_MULTIPLES_64 = 3, (8, 24), (3, 8)
"""What slots add, in units of `level_rms`: an ordinary slot of a 256-block, a great value, the slot of a 64-block."""


@dataclass(frozen=True)
class Rate:
    """All that a rate decides: adding one is adding a row to RATES.

    `upper_levels` are the upper half of the levels, ascending, in units of the block scale; the lower half mirrors it.
    `level_rms` is the rms of the Gaussian weights that the levels are made for, in level units. `fallback` is the stock
    type that takes rows which 64 does not divide.

    The encoder alone uses `costs`: how much more a whole block costs for one weight of |x| = 0, 8, .. 64 level units,
    in units of the mean squared error (measured on Gaussians, eval/experiments/tcq_marginal_cost.py, before the levels
    of rates 3 to 5 were fitted a last time; costs measured again after that lost up to 0.02 dB).
    """

    upper_levels: tuple[int, ...]
    level_rms: float
    costs: tuple[float, ...]
    fallback: str

    @property
    def levels(self) -> tuple[int, ...]:
        """`levels[z0 | z1 << 1 | z2 << 2 | z3 << 3 | lo << 4]`: ascending int8, |level| <= MAX_LEVEL."""
        return (*(-level for level in reversed(self.upper_levels)), *self.upper_levels)

    @property
    def slot(self) -> int:
        """What a slot of a 256-block adds or subtracts, in level units."""
        return round(SLOT_MULTIPLE * self.level_rms)

    @property
    def great(self) -> tuple[int, ...]:
        """What a great value of a 256-block adds or subtracts, by the bit that chooses."""
        return tuple(round(multiple * self.level_rms) for multiple in GREAT_MULTIPLES)

    @property
    def slots_64(self) -> tuple[int, ...]:
        """What the slot of a 64-block adds, by bit 6 of its byte (bit 7 is the sign)."""
        return tuple(round(multiple * self.level_rms) for multiple in SLOT_MULTIPLES_64)


# fmt: off
RATES: dict[int, Rate] = {
    1: Rate(
        upper_levels=(
            4, 10, 16, 21, 28, 36, 53, 63,
        ),
        level_rms=39.446,
        costs=(0.15, 0.19, 0.23, 0.38, 0.67, 0.99, 1.36, 1.94, 2.01),
        fallback="q4_0",
    ),
    2: Rate(
        upper_levels=(
            1, 3, 6, 8, 11, 13, 16, 19, 22, 25, 29, 33, 37, 42, 50, 63,
        ),
        level_rms=29.103,
        costs=(0.12, 0.16, 0.42, 0.75, 1.17, 1.81, 2.75, 3.80, 4.71),
        fallback="q4_0",
    ),
    3: Rate(
        upper_levels=(
            0, 1, 2, 4, 5, 5, 7, 8, 9, 9, 11, 12, 13, 14, 16, 17, 18, 19, 21, 22, 24, 25, 28, 29, 31, 33, 36, 39, 42,
            46, 52, 62,
        ),
        level_rms=25.725,
        costs=(0.36, 0.01, 0.43, 0.83, 1.72, 2.64, 3.76, 6.62, 6.32),
        fallback="q4_0",
    ),
    4: Rate(
        upper_levels=(
            0, 1, 1, 1, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 10, 11, 12, 12, 13, 13, 14, 14, 15,
            16, 16, 17, 17, 18, 19, 19, 20, 21, 21, 22, 23, 24, 24, 25, 26, 27, 28, 29, 29, 31, 32, 33, 34, 36, 37,
            40, 40, 43, 46, 49, 53, 61,
        ),
        level_rms=22.518,
        costs=(0.15, 0.21, 0.52, 1.10, 1.77, 3.36, 4.70, 9.66, 8.19),
        fallback="q5_0",
    ),
    5: Rate(
        upper_levels=(
            0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7,
            8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13, 14, 14, 14, 14,
            15, 15, 15, 15, 16, 16, 16, 17, 17, 17, 17, 18, 18, 18, 19, 19, 19, 20, 20, 20, 21, 21, 21, 22, 22, 22,
            23, 23, 23, 24, 24, 25, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 30, 30, 31, 32, 32, 33, 34, 34, 35, 36,
            37, 38, 39, 40, 41, 42, 44, 46, 48, 50, 53, 56, 60,
        ),
        level_rms=20.227,
        costs=(0.23, 0.33, 0.65, 1.10, 2.06, 4.16, 5.93, 12.95, 15.34),
        fallback="q8_0",
    ),
}
# fmt: on
"""By bits per weight, scales and slots aside."""

LEVELS = {rate: row.levels for rate, row in RATES.items()}


@dataclass(frozen=True)
class TcqFormat:
    """One type of the family: a rate (a key of RATES) in one of the two packings, blocks of 256 or of 64 weights.

    A block is path (block_size / 8 bytes), lo bits ((rate - 1) * block_size / 8 bytes), and side information: slots and
    the scale. That of a 256-block is one little-endian word (`slot_fields`), that of a 64-block a slot byte and a scale
    byte.
    """

    rate: int
    block_size: int

    @property
    def lo_offset(self) -> int:
        """Byte offset of the lo bits: the path comes first, one bit per weight."""
        return self.block_size // 8

    @property
    def slot_offset(self) -> int:
        """Byte offset of the slots: they and the scale are the side information."""
        return self.rate * self.block_size // 8

    @property
    def scale_offset(self) -> int:
        """Byte offset of the scale: the last byte of the block, from bit `scale_shift` on."""
        return self.type_size - 1

    @property
    def scale_shift(self) -> int:
        """The scale of a 256-block shares its byte with the sign of the last slot (bit 0)."""
        return 1 if self.block_size == 256 else 0

    @property
    def n_slots(self) -> int:
        """Slots of a block."""
        return 3 if self.block_size == 256 else 1

    @property
    def type_size(self) -> int:
        """Bytes per block."""
        return self.slot_offset + (4 if self.block_size == 256 else 2)


E4M3_LEAST, E5M3_LEAST = -21, -29
"""log2 of the least scale above zero: of 256-blocks, of 64-blocks."""


def scales(fmt: TcqFormat) -> NDArray[np.float32]:
    """The scales by their bits s, [128] of 256-blocks (e4m3), [256] of 64-blocks (e5m3): e = s >> 3, m = s & 7;
    (8 + m) 2^(e - 1) times the least scale, or m times the least where e = 0. All exact, ascending, no infinities.
    """
    s = np.arange(256 >> fmt.scale_shift)
    exponent, mantissa = s >> 3, s & 7
    least = E4M3_LEAST if fmt.block_size == 256 else E5M3_LEAST
    in_least = np.where(exponent > 0, np.ldexp(8.0 + mantissa, exponent - 1), mantissa)
    return np.asarray(np.ldexp(in_least, least), np.float32)


def chain_order(block_size: int) -> NDArray[np.int64]:
    """order[i] = the weight that chain time i belongs to; shape (block_size,).

    Bit k of path byte y is time 8y + k and belongs to weight (block_size / 8) k + y: bit k of all bytes together
    are consecutive weights, which is what lets a decoder work on whole bytes.
    """
    time = np.arange(block_size)
    return (block_size // 8) * (time % 8) + time // 8


def subset_table() -> NDArray[np.uint8]:
    """subset[w] = z0 | z1 << 1 | z2 << 2 | z3 << 3 of a window w of 9 path bits (bit b: the one of b steps ago)."""
    window = np.arange(1 << (MEMORY + 1), dtype=np.uint64)
    return sum(
        ((np.bitwise_count(window & np.uint64(g)) & 1) << p for p, g in enumerate(GENERATORS)),
        start=np.zeros(len(window), np.uint8),
    )


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
        index |= bits[:, 8 * fmt.lo_offset + position] << (N_PARITIES + b)
    return index


def slot_values(fmt: TcqFormat) -> NDArray[np.int16]:
    """What the slots add, in level units, by what their fields say: [32, 3] of 256-blocks, [4, 1] of 64-blocks.

    The row of a 256-block is signs | no_gap1 << 3 | no_gap2 << 4: bit i of `signs` is set if slot i is negative. If
    gap 1 is 0, slot 0 is a great value, whose magnitude slot 1's sign chooses. Else, if gap 2 is 0, slots 0 and 1 are
    great values, whose magnitude slot 2's sign chooses. The row of a 64-block is bits 6-7 of the slot byte.
    """
    row = RATES[fmt.rate]
    if fmt.block_size == 64:
        return np.array([[row.slots_64[at & 1] * (-1 if at & 2 else 1)] for at in range(4)], np.int16)
    values = np.zeros((32, 3), np.int16)
    for at in range(32):
        negative = [at >> slot & 1 for slot in range(3)]
        values[at] = [-row.slot if negative[slot] else row.slot for slot in range(3)]
        if at & 8:
            values[at, :2] = row.great[negative[1]] * (-1 if negative[0] else 1), 0
        elif at & 16:
            values[at] = [row.great[negative[2]] * (-1 if negative[slot] else 1) for slot in range(2)] + [0]
    return values


def slot_fields(fmt: TcqFormat, blocks: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the slots, [n, n_slots], and the rows of `slot_values`, [n]; blocks is (n, type_size) uint8.

    The word of a 256-block: position of slot 0 (8 bits), gap to slot 1 (7), gap to slot 2 (7), three signs, scale (7).
    """
    if fmt.block_size == 64:
        slot = blocks[:, fmt.slot_offset].astype(np.int64)
        return (slot & 63)[:, None], slot >> 6
    side = np.ascontiguousarray(blocks[:, fmt.slot_offset :]).view("<u4")[:, 0].astype(np.int64)
    gaps = np.stack((side & 0xFF, side >> 8 & 0x7F, side >> 15 & 0x7F), axis=1)
    return gaps.cumsum(axis=1) & 0xFF, side >> 22 & 7 | (gaps[:, 1] == 0) << 3 | (gaps[:, 2] == 0) << 4


def integer_weights(fmt: TcqFormat, blocks: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Levels plus slots, in units of the block scale; blocks is (n, type_size) uint8, the result (n, block_size)."""
    weights = np.array(LEVELS[fmt.rate], np.int32)[level_indices(fmt, blocks)]
    positions, choice = slot_fields(fmt, blocks)
    np.add.at(weights, (np.arange(len(blocks))[:, None], positions), slot_values(fmt)[choice])
    return weights


def block_scales(fmt: TcqFormat, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale of every block; blocks is (n, type_size) uint8, the result (n,)."""
    by_bits: NDArray[np.float32] = scales(fmt)[blocks[:, fmt.scale_offset] >> fmt.scale_shift]
    return by_bits


def dequantize(fmt: TcqFormat, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Weights of blocks (n, type_size) uint8 as (n, block_size) float32; exact: every product fits a float32."""
    integers: NDArray[np.float32] = integer_weights(fmt, blocks).astype(np.float32)
    return block_scales(fmt, blocks)[:, None] * integers
