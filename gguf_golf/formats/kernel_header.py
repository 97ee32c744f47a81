"""What the SIMD kernels look up, as a C header: parity matrices, parity nibble tables and level tables.

Everything follows from `tcq.py`: the index of a level is linear (over GF(2)) in the path bits of its byte, those of the
previous byte, and its lo bits. As levels are mirrored, half a table does: where an index's top bit (the weight's last
lo bit, its sign) is set, the other bits are complemented ("mirrored"), which is linear too, and the level negated.
`python -m gguf_golf.formats.kernel_header` rewrites patches/src/ggml/src/ggml-cpu/tcq-simd-tables.h; a test checks that
it is current.
"""

from pathlib import Path

from gguf_golf.formats import quant_types, tcq
from gguf_golf.formats.header import c_table

HEADER = Path(__file__).parents[2] / "patches/src/ggml/src/ggml-cpu/tcq-simd-tables.h"

LEVEL_BIAS = 64
"""Added to the levels of x86 tables: its byte multiplication takes unsigned by signed."""

GROUP_PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7))
"""Of rows repacked in groups: the sub-blocks whose parities are in a byte's lower and upper half."""

CELLS = ((6, 7), (4, 5), (2, 3), (0,), (1,))
"""At rate 5: mirrored lo bits whose sizes are one table's after a shift by half of CELL_OFFSETS and rounding down."""

CELL_OFFSETS = (1, 0, 11, 0, 7, 0, 7, 0)
"""No entry that chooses a table may be zero, so the first of them, whose sizes have no half, is 1."""

PREV, CUR = 0, 8

SIGN_BIT = 7
"""Of a mirrored index in a byte: where its top bit is."""

HALVES = ((1, 5), (0, 4), (3, 7), (2, 6))
"""Of blocks of 256, by vector i = 0..3: the sub-blocks in its halves, whose stored pairs of bits are at bit 2i."""

SINGLE_BITS = {2: ((4, 5, 2, 3),), 4: ((2, None, 6, None), (None, 4, None, 6))}
"""By rate that stores a lo bit alone, then byte, then vector: the bit that an affine transform makes of it."""

SINGLE = {2: 0, 4: 2}
"""Which lo bit that is."""

LUT_BITS_2 = ((0, 1, 2, 3, 4), (0, 1, 2, 3, 5), (2, 3, 4, 5, 0), (2, 3, 4, 5, 1))
"""At rate 2, by vector: the bits of a byte that are the index."""


def parity_taps(parity: int, k: int) -> int:
    """Mask of the path bits in a parity at bit k of a byte: bits 0-7 the previous byte, bits 8-15 the current one."""
    return sum(1 << (CUR + k - b) for b in range(tcq.MEMORY + 1) if tcq.GENERATORS[parity] >> b & 1)


def affine_matrix(rows: dict[int, int]) -> int:
    """The 8x8 bit matrix of GF2P8AFFINEQB whose output bit i is the parity of the input byte under mask rows[i]."""
    return sum(mask << (8 * (7 - i)) for i, mask in rows.items())


def matrix_rows(matrix: int) -> dict[int, int]:
    """The masks of `affine_matrix`, all eight."""
    return {i: matrix >> (8 * (7 - i)) & 0xFF for i in range(8)}


def path_matrices(offset: int) -> list[int]:
    """By k: the matrix from the previous (offset PREV) or the current (CUR) path byte to the parities."""
    return [affine_matrix({p: parity_taps(p, k) >> offset & 0xFF for p in range(tcq.N_PARITIES)}) for k in range(8)]


def lo_matrices(fmt: tcq.TcqFormat, mirrored: bool = False) -> list[int]:
    """By plane, then k: the matrix from a byte of the first or second plane of lo bits to its part of the index.

    A plane is what a kernel loads at once: the lo bits in the order of their first byte, one or two bits per weight.
    """
    width = fmt.block_size // 8
    positions = tcq.lo_bit_positions(fmt)
    second = width * (1 if fmt.rate == 4 and fmt.block_size == 64 else 2)
    matrices = []
    for plane in range(2):
        for k in range(8):
            rows = dict.fromkeys(range(8), 0)
            for b, position in enumerate(positions[width * k]):
                if (int(position) // 8 >= second) == bool(plane):
                    rows[tcq.N_PARITIES + b] = 1 << int(position) % 8
            if mirrored:
                sign = rows.pop(tcq.N_PARITIES + fmt.rate - 2)
                rows = {i: row ^ sign if i < tcq.N_PARITIES + fmt.rate - 2 else row for i, row in rows.items()}
                rows[SIGN_BIT] = sign
            matrices.append(affine_matrix(rows))
    return matrices


def parity_matrices(offset: int) -> list[int]:
    """Matrices for 64 bytes, halves alike: parities of vector i of HALVES in the low nibble, of i + 2 in the other."""
    by_k = path_matrices(offset)
    return [
        affine_matrix(
            {4 * n + p: matrix_rows(by_k[HALVES[i + 2 * n][half]])[p] for n in range(2) for p in range(tcq.N_PARITIES)}
        )
        for i in range(2)
        for half in range(2)
        for _ in range(4)
    ]


def single_matrices(rate: int) -> list[int]:
    """Matrices for 64 bytes, halves alike, that put the lo bit SINGLE where SINGLE_BITS has it; by byte."""
    lo = lo_matrices(tcq.TcqFormat(rate, 256))
    by_k = [matrix_rows(lo[k] | lo[8 + k])[tcq.N_PARITIES + SINGLE[rate]] for k in range(8)]
    return [
        affine_matrix({bit: by_k[HALVES[v][half]] for v, bit in enumerate(bits) if bit is not None})
        for bits in SINGLE_BITS[rate]
        for half in range(2)
        for _ in range(4)
    ]


def permuted_level_tables() -> list[int]:
    """Biased levels of rate 2 by bytes whose bits LUT_BITS_2 names, table after table of 64."""
    return [
        tcq.LEVELS[2][sum((index >> bit & 1) << i for i, bit in enumerate(bits))] + LEVEL_BIAS
        for bits in LUT_BITS_2
        for index in range(64)
    ]


def nibble_tables(outputs: list[int], n_nibbles: int) -> list[int]:
    """Tables [nibble][16] whose XOR over prev.lo, prev.hi, cur.lo(, cur.hi) has at bit i the parity of outputs[i]."""
    tables = []
    for nibble in range(n_nibbles):
        for value in range(16):
            word = value << (4 * nibble)
            tables.append(sum(((word & mask).bit_count() & 1) << i for i, mask in enumerate(outputs)))
    return tables


def pair_order(block_size: int) -> list[list[int]]:
    """By nibble of the planes of two lo bits per weight: the sub-blocks whose pairs are in its lower and upper half."""
    width = block_size // 8
    low = tcq.lo_bit_positions(tcq.TcqFormat(3, block_size))[::width, 0]
    place = 2 * (low // 8 // width * 2 + low % 8 // 4) + low % 4 // 2
    order = [int(k) for k in place.argsort()]
    return [order[i : i + 2] for i in range(0, 8, 2)]


def parities_of_pairs(pairs: list[list[int]], n_nibbles: int) -> list[int]:
    """Nibble tables for bytes with all parities of two sub-blocks, table after table."""
    return [
        value
        for pair in pairs
        for value in nibble_tables([parity_taps(p, k) for k in pair for p in range(tcq.N_PARITIES)], n_nibbles)
    ]


def spread_tables(targets: list[dict[int, int]]) -> list[int]:
    """Tables [i][16] by a nibble: the XOR of targets[i][bit] over its bits that are set."""
    return [
        sum(mask for bit, mask in target.items() if nibble >> bit & 1) for target in targets for nibble in range(16)
    ]


def mirror_tables() -> dict[str, list[int]]:
    """What to XOR where signs are set, by nibbles of the plane that has the signs."""
    single = [int(bit) % 8 for bit in tcq.lo_bit_positions(tcq.TcqFormat(4, 64))[::8, 0]]
    pair, _, sign = ([int(bit) % 8 for bit in bits] for bits in tcq.lo_bit_positions(tcq.TcqFormat(4, 256))[::32].T)
    of_nibbles = [{sign[low] % 4: 0x0F, sign[high] % 4: 0xF0} for low, high in pair_order(256)]
    return {
        "tcq_mirror_pairs": spread_tables([{1: 0x0F, 3: 0xF0}]),
        "tcq4_mirror": spread_tables(of_nibbles[:2]),
        "tcq4_spread": spread_tables([{sign[k] % 4: 3 << pair[k] for k in range(4)}]),
        "tcq4_64_spread": spread_tables([{1: 1 << single[low], 3: 1 << single[high]} for low, high in pair_order(64)]),
    }


def sizes(rate: int) -> list[int]:
    """What the levels with the top bit clear are below zero, by index; by a mirrored index: the size of any level."""
    levels = tcq.LEVELS[rate]
    return [-level for level in levels[: len(levels) // 2]]


def chained(table: list[int]) -> list[int]:
    """A table by 16, each but the first XORed with the one before: the XOR of the first n is the n-th."""
    return [value ^ (table[i - 16] if i >= 16 else 0) for i, value in enumerate(table)]


def relative_parities() -> list[int]:
    """Nibble tables of the first half's GROUP_PAIRS for groups: z0, z1, z2 each XORed with z3, and z3.

    Complementing all four, which mirrors an index, changes the last one only.
    """

    def outputs(k: int) -> list[int]:
        *others, last = (parity_taps(p, k) for p in range(tcq.N_PARITIES))
        return [*(other ^ last for other in others), last]

    return [value for a, b in GROUP_PAIRS[:2] for value in nibble_tables(outputs(a) + outputs(b), 3)]


def relative_index(nibble: int, flipped: bool) -> int:
    """Bits 0-3 of the mirrored index that belong to a nibble of `relative_parities` whose last bit was mirrored.

    `flipped`: mirrored where the level is below zero, instead of where it is above.
    """
    top = nibble >> 3 ^ flipped
    return top << 3 | nibble & 7 ^ 7 * top


def group_sizes(rate: int) -> list[int]:
    """Sizes for groups, table after table by mirrored lo bits, then by nibble."""
    return [sizes(rate)[16 * j + relative_index(n, flipped=True)] for j in range(1 << (rate - 2)) for n in range(16)]


def cells() -> tuple[list[int], list[int]]:
    """Rate 5 for groups: entries by lo bits, and tables [5][16] by nibble.

    Bits 1 to 6 of a sum of both are the size; CELLS says which table. An entry has the sign (set below zero) at bit 7
    and what chooses the table below: bit 5 lo bit 1, bit 6 lo bit 2, bit 4 lo bit 0 if those are clear, all mirrored.
    """
    entries, tables = [0] * 16, []
    for cell in CELLS:
        choice = (cell[0] & 6) << 4 | (cell == (1,)) << 4
        bounds = [
            [2 * sizes(5)[16 * j + z] - CELL_OFFSETS[j] - choice for j in cell]
            for z in (relative_index(n, flipped=False) for n in range(16))
        ]
        if any(max(lows) > min(lows) + 1 for lows in bounds):
            raise AssertionError(f"lo bits {cell} cannot have one table")
        tables += [max(lows) % 128 for lows in bounds]
        for j in cell:
            entries[j] = 0x80 | choice | CELL_OFFSETS[j]
            entries[15 - j] = choice | CELL_OFFSETS[j]
    return entries, tables


def render() -> str:
    """The header's text."""

    def hexadecimal(values: list[int], times: int = 1) -> list[str]:
        return [f"0x{value:016x}ULL" for value in values for _ in range(times)]

    def matrices(name: str, values: list[int], times: int = 1) -> str:
        return c_table(f"uint64_t {name}[{len(values)}{f'*{times}' if times > 1 else ''}]", hexadecimal(values, times))

    def nibbles(name: str, values: list[int]) -> str:
        return c_table(f"uint8_t {name}[{len(values) // 16}*16]", values)

    with_lo = [(name, fmt) for name, fmt in quant_types.TCQ_FORMATS.items() if fmt.rate > 1]
    parts = [
        "// Generated by gguf_golf/formats/kernel_header.py from gguf_golf/formats/tcq.py: change it there.\n\n"
        "#pragma once\n\n#include <stdint.h>\n\n"
        "#ifndef TCQ_TABLE\n#define TCQ_TABLE static const\n#endif\n",
        "// GF2P8AFFINEQB matrices by k: path byte and previous path byte -> index bits 0-3. In blocks of 256 one\n"
        "// serves 32 bytes, so these stand there four times\n"
        + matrices("tcq_affine_cur", path_matrices(CUR), 4)
        + matrices("tcq_affine_prev", path_matrices(PREV), 4)
        + matrices("tcq_64_affine_cur", path_matrices(CUR))
        + matrices("tcq_64_affine_prev", path_matrices(PREV)),
        "// by plane, then k: byte of the first or second plane of lo bits -> mirrored index, its sign at bit 7\n"
        + "".join(
            matrices(f"{name}_affine_mirrored", lo_matrices(fmt, mirrored=True), 4 if fmt.block_size == 256 else 1)
            for name, fmt in with_lo
        ),
        "// the same -> index bits 4 and up\n"
        + "".join(
            matrices(f"{name}_affine_lo", lo_matrices(fmt))
            for name, fmt in with_lo
            if fmt.block_size == 64 and fmt.rate < 5
        ),
        "// for 64 bytes whose halves are sub-blocks of 256: path byte, previous path byte -> parities of the vectors\n"
        "// i and i + 2; i = 0, 1; lo bit stored alone -> bits of indices (kernel_header.py: HALVES, SINGLE_BITS)\n"
        + matrices("tcq_parity_cur", parity_matrices(CUR))
        + matrices("tcq_parity_prev", parity_matrices(PREV))
        + "".join(matrices(f"tcq{rate}_single", single_matrices(rate)) for rate in SINGLE),
        "// XOR of [nibble] over prev.lo, prev.hi, cur.lo: parities of k + 1 | of k << 4, for k = 0 and k = 2\n"
        + nibbles("tcq_nibble_pair", parities_of_pairs(pair_order(256)[:2], 3)),
        "// for blocks of 64, with cur.hi: of k = 2, 6, then 0, 4, then 3, 7, then 1, 5\n"
        + nibbles("tcq_quad_pair", parities_of_pairs(pair_order(64), 4)),
        "// by nibbles of the plane with the signs: what mirrors parities, pairs of lo bits, single lo bits\n"
        + "".join(nibbles(name, table) for name, table in mirror_tables().items()),
        f"// levels + {LEVEL_BIAS} by index; rate 5: those with the top bit clear\n"
        + "".join(
            c_table(f"uint8_t tcq{rate}_lut[{min(len(levels), 128)}]", [level + LEVEL_BIAS for level in levels[:128]])
            for rate, levels in tcq.LEVELS.items()
        ),
        "// rate 2 by bytes with the index at other bits (kernel_header.py: LUT_BITS_2)\n"
        + c_table("uint8_t tcq2_lut_permuted[4*64]", permuted_level_tables()),
        "// sizes of levels by mirrored index; chained: by 16, each but the first XORed with the one before\n"
        + "".join(nibbles(f"tcq{rate}_sizes", sizes(rate)) for rate in (3, 4, 5))
        + "".join(nibbles(f"tcq{rate}_sizes_chained", chained(sizes(rate))) for rate in (2, 3, 4, 5)),
    ]
    entries, tables = cells()
    parts.append(
        "// rows repacked in groups (tcq-repack.h): parities of k = 0 | of 1 << 4, then of 2 and 3; relative ones,\n"
        "// and sizes by them (kernel_header.py: relative_parities, group_sizes, cells)\n"
        + nibbles("tcq_group_parities", parities_of_pairs([[*pair] for pair in GROUP_PAIRS[:2]], 3))
        + nibbles("tcq_relative_parities", relative_parities())
        + "".join(nibbles(f"tcq{rate}_group_sizes", group_sizes(rate)) for rate in (2, 3, 4))
        + nibbles("tcq5_cells", entries)
        + nibbles("tcq5_group_sizes", tables)
    )
    return "\n".join(parts)


if __name__ == "__main__":
    HEADER.write_text(render(), encoding="utf-8")
