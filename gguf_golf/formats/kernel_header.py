"""What the SIMD kernels look up, as a C header: parity matrices, parity nibble tables and level tables.

Everything follows from `tcq.py`: the index of a level is linear (over GF(2)) in the path bits of its byte, those of the
previous byte, and its lo bits. `python -m gguf_golf.formats.kernel_header` rewrites
patches/src/ggml/src/ggml-cpu/tcq-simd-tables.h; a test checks that it is current.
"""

from pathlib import Path

import numpy as np

from gguf_golf.formats import tcq, types
from gguf_golf.formats.header import c_table

HEADER = Path(__file__).parents[2] / "patches/src/ggml/src/ggml-cpu/tcq-simd-tables.h"

LEVEL_BIAS = 64
"""Added to the levels of x86 tables: its byte multiplication takes unsigned by signed."""

PREV, CUR = 0, 8

QUAD_ORDER = (1, 3, 5, 7, 0, 2, 4, 6)
"""The sub-block stored at bit 7, 6, ... 0 of each byte of a one-bit lo plane (blocks of 64)."""

QUAD_PAIRS = ((6, 2, 4, 0), (7, 3, 5, 1))
"""The sub-blocks whose z0 and z1 are at bits 0, 2, 4, 6: then, with the even and the odd plane of two lo bits per
weight, one swap of pairs makes the nibbles z0 z1 lo lo (k = 4..7) and lo lo z0 z1 (k = 0..3)."""

HALVES = ((1, 5), (0, 4), (3, 7), (2, 6))
"""Of blocks of 256, by vector i = 0..3: the sub-blocks in its halves, whose stored pairs of bits are at bit 2i."""

PARITY_BITS = {
    1: ((0, 1, 2), (0, 1, 2), (3, 4, 5), (3, 4, 5)),
    2: ((0, 1, 2, 3), (0, 1, 2, 3), (4, 5, 6, 7), (4, 5, 6, 7)),
    3: ((3, 4, 5), (0, 1, 2), (0, 1, 2), (3, 4, 5)),
    4: ((4, 5, 6, 7), (0, 1, 4, 5), (0, 1, 2, 3), (2, 3, 6, 7)),
    5: ((2, 3, 4), (0, 1, 6), (0, 1, 6), (2, 3, 4)),
}
"""By rate, then vector: bits of a byte that affine transforms make of z0, z1, z2 and the lo bit that is stored alone.

Those of the vectors i and i + 2 share the byte. They are chosen so that pairs of bits take few shifts to join them.
"""

SINGLE_PLANE = {2: 0, 4: 1}
"""By rate, where blocks of 256 store a lo bit alone: its plane, as lo_matrices counts them."""

LUT_BITS: dict[int, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]] = {
    1: (((0, 1, 2), ()), ((3, 4, 5), ())),
    2: (((0, 1, 2), (3,)),),
    3: (((0, 1, 2), (4, 5)), ((3, 4, 5), (0, 1))),
    4: (((0, 1, 2), (4, 5, 3)), ((0, 1, 4), (2, 3, 5))),
    5: (((0, 1, 6), (4, 5, 2, 3)), ((2, 3, 4), (0, 1, 5, 6))),
}
"""By rate, then table: the bits of an index for z0, z1, z2 and for the lo bits (a pair, then another or one alone)."""


def parity_taps(parity: int, k: int) -> int:
    """Mask of the path bits in a parity at bit k of a byte: bits 0-7 the previous byte, bits 8-15 the current one."""
    return sum(1 << (CUR + k - b) for b in range(tcq.MEMORY + 1) if tcq.GENERATORS[parity] >> b & 1)


def affine_matrix(rows: dict[int, int]) -> int:
    """The 8x8 bit matrix of GF2P8AFFINEQB whose output bit i is the parity of the input byte under mask rows[i]."""
    return sum(mask << (8 * (7 - i)) for i, mask in rows.items())


def path_matrices(offset: int) -> list[int]:
    """By k: the matrix from the previous (offset PREV) or the current (CUR) path byte to index bits 0-2."""
    return [
        affine_matrix({p: parity_taps(p, k) >> offset & 0xFF for p in range(len(tcq.GENERATORS))}) for k in range(8)
    ]


def lo_matrices(fmt: tcq.TcqFormat) -> list[int]:
    """By plane, then k: the matrix from a byte of the first or second plane of lo bits to the index bits above 2.

    A plane is what a kernel loads at once: the lo bits in the order of their first byte, one or two bits per weight.
    """
    bytes_per_bit = fmt.block_size // 8
    positions = tcq.lo_bit_positions(fmt)
    starts = [0, bytes_per_bit * (1 if fmt.rate == 4 and fmt.block_size == 64 else 2)]
    matrices = []
    for plane in range(2):
        for k in range(8):
            rows = {}
            for b, position in enumerate(positions[bytes_per_bit * k]):
                if (int(position) // 8 >= starts[1]) == bool(plane):
                    rows[3 + b] = 1 << int(position) % 8
            matrices.append(affine_matrix(rows))
    return matrices


def parity_matrices(by_k: list[int], rate: int, single: bool = False) -> list[int]:
    """Matrices for 64 bytes, halves alike, that make parts of the indices of vectors i and i + 2 of HALVES; i = 0, 1.

    `by_k` makes index bits 0-2, which go where PARITY_BITS has z0, z1, z2; with `single`, by_k makes just the lo bit
    that is stored alone, and it goes where PARITY_BITS has its fourth bit.
    """

    def place(matrix: int, bits: tuple[int, ...]) -> int:
        rows = {i: matrix >> (8 * (7 - i)) & 0xFF for i in range(8)}
        return affine_matrix({bits[3]: sum(rows.values())} if single else {bits[z]: rows[z] for z in range(3)})

    bits = PARITY_BITS[rate]
    return [
        place(by_k[HALVES[i][half]], bits[i]) | place(by_k[HALVES[i + 2][half]], bits[i + 2])
        for i in range(2)
        for half in range(2)
        for _ in range(4)
    ]


def halves_level_tables(rate: int) -> list[int]:
    """Biased levels by the indices whose bits LUT_BITS names, table after table; 64 or 128 entries each."""
    levels = []
    for z_bits, lo_bits in LUT_BITS[rate]:
        for index in range(128 if rate == 5 else 64):
            natural = sum((index >> bit & 1) << i for i, bit in enumerate(z_bits + lo_bits))
            levels.append(tcq.LEVELS[rate][natural] + LEVEL_BIAS)
    return levels


def nibble_tables(outputs: list[tuple[int, int]], n_nibbles: int) -> list[int]:
    """Tables [nibble][16] whose XOR over prev.lo, prev.hi, cur.lo(, cur.hi) has at bit i parity outputs[i] = (p, k).

    p = -1 leaves a bit zero.
    """
    tables = []
    for nibble in range(n_nibbles):
        for value in range(16):
            word = value << (4 * nibble)
            tables.append(
                sum(((word & parity_taps(p, k)).bit_count() & 1) << i for i, (p, k) in enumerate(outputs) if p >= 0)
            )
    return tables


def chained_level_tables(rate: int) -> list[int]:
    """Biased levels [i][16], chunk i XORed with chunk i - 1, for lookups by XOR of shuffles, 0 out of range."""
    chunks = (np.array(tcq.LEVELS[rate]) + LEVEL_BIAS).reshape(-1, 16)
    chunks[1:] ^= chunks[:-1].copy()
    return [int(v) for v in chunks.ravel()]


def merged_level_tables(rate: int, pair: int = 0) -> list[int]:
    """Biased levels [swapped][z2 | other lo bits << 1][nibble]; the nibble is z0 z1 p0 p1, or swapped p0 p1 z0 z1.

    p0 and p1 are two neighbouring lo bits, from `pair` on.
    """
    levels, tables = tcq.LEVELS[rate], []
    for swapped in range(2):
        for select in range(1 << (rate - 2)):
            for nibble in range(16):
                low, high = nibble & 3, nibble >> 2
                z01, lo_pair = (high, low) if swapped else (low, high)
                others = select >> 1
                below = others & ((1 << pair) - 1)
                index = z01 | (select & 1) << 2 | (below | lo_pair << pair | others >> pair << (pair + 2)) << 3
                tables.append(levels[index] + LEVEL_BIAS)
    return tables


def render() -> str:
    """The header's text."""

    def hexadecimal(values: list[int], times: int = 1) -> list[str]:
        return [f"0x{value:016x}ULL" for value in values for _ in range(times)]

    pair = [(0, 0), (1, 0), (2, 0), (-1, 0), (0, 1), (1, 1), (2, 1), (-1, 0)]
    parts = [
        "// Generated by gguf_golf/formats/kernel_header.py from gguf_golf/formats/tcq.py: change it there.\n\n"
        "#pragma once\n\n#include <stdint.h>\n\n"
        "#ifndef TCQ_TABLE\n#define TCQ_TABLE static const\n#endif\n",
        "// GF2P8AFFINEQB matrices by k: path byte and previous path byte -> index bits 0-2. In blocks of 256 one\n"
        "// serves 32 bytes, so these stand there four times\n"
        + c_table("uint64_t tcq_affine_cur[8*4]", hexadecimal(path_matrices(CUR), 4))
        + c_table("uint64_t tcq_affine_prev[8*4]", hexadecimal(path_matrices(PREV), 4))
        + c_table("uint64_t tcq_64_affine_cur[8]", hexadecimal(path_matrices(CUR)))
        + c_table("uint64_t tcq_64_affine_prev[8]", hexadecimal(path_matrices(PREV))),
        "// by plane, then k: byte of the first or second plane of lo bits -> index bits 3 and up\n"
        + "".join(
            c_table(
                f"uint64_t {name}_affine_lo[2*8{'*4' if fmt.block_size == 256 else ''}]",
                hexadecimal(lo_matrices(fmt), 4 if fmt.block_size == 256 else 1),
            )
            for name, fmt in types.TCQ_FORMATS.items()
            if fmt.rate > 1
        ),
        "// for 64 bytes whose halves are sub-blocks of 256: path byte, previous path byte and lo bit stored alone ->\n"
        "// parts of the indices of the vectors i and i + 2; i = 0, 1 (kernel_header.py: HALVES, PARITY_BITS)\n"
        + "".join(
            c_table(f"uint64_t tcq{rate}_parity_{part}[2*8]", hexadecimal(parity_matrices(path_matrices(offset), rate)))
            for rate in tcq.LEVELS
            for part, offset in (("cur", CUR), ("prev", PREV))
        )
        + "".join(
            c_table(
                f"uint64_t tcq{rate}_parity_lo[2*8]",
                hexadecimal(
                    parity_matrices(lo_matrices(types.TCQ_FORMATS[f"tcq{rate}"])[8 * plane :][:8], rate, single=True)
                ),
            )
            for rate, plane in SINGLE_PLANE.items()
        ),
        "// XOR of [nibble] over prev.lo, prev.hi, cur.lo: subset of k | subset of k + 1 << 4, for k = 0 and k = 2\n"
        + c_table(
            "uint8_t tcq_nibble_pair[2*3*16]",
            nibble_tables(pair, 3) + nibble_tables([(p, k + 2) for p, k in pair], 3),
        ),
        "// the same: z0 | z1 << 1 of k = 0..3 at bit 2k\n"
        + c_table("uint8_t tcq_nibble_z01[3*16]", nibble_tables([(p, k) for k in range(4) for p in range(2)], 3)),
        "// with cur.hi: z2 of k = 0..7 at bit k\n"
        + c_table("uint8_t tcq_nibble_z2[4*16]", nibble_tables([(2, k) for k in range(8)], 4)),
        "// for blocks of 64, with cur.hi: the same of k = 6, 2, 4, 0, then of 7, 3, 5, 1; z2 in the order of lo bits\n"
        + c_table(
            "uint8_t tcq_quad_z01[2*4*16]",
            [v for ks in QUAD_PAIRS for v in nibble_tables([(p, k) for k in ks for p in range(2)], 4)],
        )
        + c_table("uint8_t tcq_quad_z2[4*16]", nibble_tables([(2, k) for k in reversed(QUAD_ORDER)], 4)),
        f"// levels + {LEVEL_BIAS} by index; rate 1 twice, to fill a vector\n"
        + "".join(
            c_table(
                f"uint8_t tcq{rate}_lut[{max(len(levels), 16)}]", np.resize(levels, max(len(levels), 16)) + LEVEL_BIAS
            )
            for rate, levels in tcq.LEVELS.items()
        ),
        "// levels + 64 by those indices (kernel_header.py: LUT_BITS)\n"
        + "".join(
            c_table(
                f"uint8_t tcq{rate}_lut_halves[{len(tables)}*{128 if rate == 5 else 64}]", halves_level_tables(rate)
            )
            for rate, tables in LUT_BITS.items()
        ),
        "// levels by 16, each but the first XORed with the one before: XOR of the first n is the n-th\n"
        + "".join(
            c_table(f"uint8_t tcq{rate}_lut_chain[{8 << (rate - 1)}]", chained_level_tables(rate))
            for rate in (2, 3, 4, 5)
        ),
        "// levels with nibbles in merged order: [swapped][z2 | lo >> 2 << 1][nibble]; rate 4 of blocks of 64 has\n"
        "// lo >> 1 in the nibble\n"
        + "".join(
            c_table(f"uint8_t tcq{rate}_lut_merged[2*{8 << (rate - 1)}]", merged_level_tables(rate))
            for rate in (3, 4, 5)
        )
        + c_table("uint8_t tcq4_64_lut_merged[2*64]", merged_level_tables(4, pair=1)),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    HEADER.write_text(render(), encoding="utf-8")
