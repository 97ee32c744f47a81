"""The kernels' tables: current, and right where a few lines can say what they mean."""

import numpy as np

from gguf_golf.formats import kernel_header, tcq, types


def test_header_is_current() -> None:
    assert kernel_header.HEADER.read_text() == kernel_header.render()


def apply(matrix: int, byte: int) -> int:
    """GF2P8AFFINEQB on one byte, as Intel's manual has it: output bit i is the parity of row 7 - i and the byte."""
    return sum(((matrix >> 8 * (7 - i) & byte & 0xFF).bit_count() & 1) << i for i in range(8))


def test_affine_matrices_give_the_index() -> None:
    rng = np.random.default_rng(0)
    for fmt in types.TCQ_FORMATS.values():
        block = rng.integers(0, 256, (1, fmt.type_size), np.uint8)
        index = tcq.level_indices(fmt, block)[0]
        width = fmt.block_size // 8
        cur, prev = (kernel_header.path_matrices(offset) for offset in (kernel_header.CUR, kernel_header.PREV))
        lo = kernel_header.lo_matrices(fmt)
        positions = tcq.lo_bit_positions(fmt)
        for j in range(fmt.block_size):
            k, y = j // width, j % width
            got = apply(cur[k], int(block[0, y])) ^ apply(prev[k], int(block[0, y - 1 if y else width - 1]))
            for plane in range(2):
                bytes_of_plane = {
                    int(p) // 8 for b, p in enumerate(positions[j]) if lo[8 * plane + k] >> (8 * (4 - b)) & 0xFF
                }
                for at in bytes_of_plane:  # all lo bits of a plane lie in one byte
                    got ^= apply(lo[8 * plane + k], int(block[0, fmt.lo_offset + at]))
                assert len(bytes_of_plane) <= 1
            assert got == index[j]


def test_parity_matrices_serve_two_vectors() -> None:
    rng = np.random.default_rng(1)
    for fmt in (fmt for fmt in types.TCQ_FORMATS.values() if fmt.block_size == 256):
        block = rng.integers(0, 256, (1, fmt.type_size), np.uint8)
        index = tcq.level_indices(fmt, block)[0]
        cur, prev = (
            kernel_header.parity_matrices(kernel_header.path_matrices(offset), fmt.rate)
            for offset in (kernel_header.CUR, kernel_header.PREV)
        )
        lo = [0] * 16
        if fmt.rate in kernel_header.SINGLE_PLANE:
            lo = kernel_header.lo_matrices(fmt)[8 * kernel_header.SINGLE_PLANE[fmt.rate] :][:8]
            lo = kernel_header.parity_matrices(lo, fmt.rate, single=True)
        for i, bits in enumerate(kernel_header.PARITY_BITS[fmt.rate]):
            for half, k in enumerate(kernel_header.HALVES[i]):
                at = 8 * (i & 1) + 4 * half
                for y in range(32):
                    byte = apply(cur[at], int(block[0, y])) ^ apply(prev[at], int(block[0, (y - 1) % 32]))
                    byte ^= apply(lo[at], int(block[0, fmt.rate * 32 - 32 + y]))
                    alone = [3] if fmt.rate == 2 else [5] if fmt.rate == 4 else []
                    assert [byte >> bit & 1 for bit in bits] == [index[32 * k + y] >> b & 1 for b in [0, 1, 2, *alone]]


def test_permuted_level_tables_hold_the_levels() -> None:
    for rate, tables in kernel_header.LUT_BITS.items():
        found = np.array(kernel_header.halves_level_tables(rate)).reshape(len(tables), -1)
        for table, (z_bits, lo_bits) in zip(found, tables, strict=True):
            for natural, level in enumerate(tcq.LEVELS[rate]):
                place = sum((natural >> i & 1) << bit for i, bit in enumerate(z_bits + lo_bits))
                others = [v for v in range(len(table)) if v & sum(1 << bit for bit in z_bits + lo_bits) == place]
                assert {int(table[v]) for v in others} == {level + kernel_header.LEVEL_BIAS}
