"""The kernels' tables: current, and right where a few lines can say what they mean."""

import numpy as np

from gguf_golf.formats import kernel_header, quant_types, tcq


def test_header_is_current() -> None:
    assert kernel_header.HEADER.read_text() == kernel_header.render()


def apply(matrix: int, byte: int) -> int:
    """GF2P8AFFINEQB on one byte, as Intel's manual has it: output bit i is the parity of row 7 - i and the byte."""
    return sum(((matrix >> 8 * (7 - i) & byte & 0xFF).bit_count() & 1) << i for i in range(8))


def mirrored(rate: int, index: int) -> int:
    """All but the top bit complemented where that is set, itself at bit 7."""
    top = 8 << (rate - 1)
    return 0x80 | ~index & (top - 1) if index & top else index


def test_affine_matrices_give_the_index() -> None:
    rng = np.random.default_rng(0)
    for fmt in quant_types.TCQ_FORMATS.values():
        block = rng.integers(0, 256, (1, fmt.type_size), np.uint8)
        index = tcq.level_indices(fmt, block)[0]
        width = fmt.block_size // 8
        cur, prev = (kernel_header.path_matrices(offset) for offset in (kernel_header.CUR, kernel_header.PREV))
        positions = tcq.lo_bit_positions(fmt)
        for mirror in (False, True) if fmt.rate > 1 else (False,):
            lo = kernel_header.lo_matrices(fmt, mirror)
            for j in range(fmt.block_size):
                k, y = j // width, j % width
                got = apply(cur[k], int(block[0, y])) ^ apply(prev[k], int(block[0, y - 1 if y else width - 1]))
                for plane in range(2):
                    # all lo bits of a plane lie in one byte
                    natural = kernel_header.lo_matrices(fmt)[8 * plane + k]
                    at = {int(p) // 8 for b, p in enumerate(positions[j]) if natural >> (8 * (3 - b)) & 0xFF}
                    assert len(at) <= 1
                    got ^= sum(apply(lo[8 * plane + k], int(block[0, fmt.lo_offset + byte])) for byte in at)
                assert got == (mirrored(fmt.rate, int(index[j])) if mirror else index[j])


def test_parity_matrices_serve_two_vectors() -> None:
    rng = np.random.default_rng(1)
    for fmt in (fmt for fmt in quant_types.TCQ_FORMATS.values() if fmt.block_size == 256):
        block = rng.integers(0, 256, (1, fmt.type_size), np.uint8)
        index = tcq.level_indices(fmt, block)[0]
        cur, prev = (kernel_header.parity_matrices(offset) for offset in (kernel_header.CUR, kernel_header.PREV))
        for i, halves in enumerate(kernel_header.HALVES):
            for half, k in enumerate(halves):
                at = 8 * (i & 1) + 4 * half
                for y in range(32):
                    byte = apply(cur[at], int(block[0, y])) ^ apply(prev[at], int(block[0, (y - 1) % 32]))
                    assert byte >> (4 if i >= 2 else 0) & 15 == index[32 * k + y] & 15


def test_single_matrices_bring_the_lo_bit_outside_pairs() -> None:
    rng = np.random.default_rng(2)
    for rate, b in kernel_header.SINGLE.items():
        fmt = tcq.TcqFormat(rate, 256)
        block = rng.integers(0, 256, (1, fmt.type_size), np.uint8)
        index = tcq.level_indices(fmt, block)[0]
        positions = tcq.lo_bit_positions(fmt)
        matrices = kernel_header.single_matrices(rate)
        for byte, bits in enumerate(kernel_header.SINGLE_BITS[rate]):
            for i, bit in enumerate(bits):
                for half, k in enumerate(kernel_header.HALVES[i] if bit is not None else ()):
                    for j in range(32 * k, 32 * k + 32):
                        stored = int(block[0, fmt.lo_offset + positions[j, b] // 8])
                        got = apply(matrices[8 * byte + 4 * half], stored)
                        assert got >> (bit or 0) & 1 == index[j] >> (4 + b) & 1


def test_permuted_level_tables_hold_the_levels() -> None:
    found = np.array(kernel_header.permuted_level_tables()).reshape(-1, 64)
    for table, bits in zip(found, kernel_header.LUT_BITS_2, strict=True):
        for natural, level in enumerate(tcq.LEVELS[2]):
            place = sum((natural >> i & 1) << bit for i, bit in enumerate(bits))
            others = [v for v in range(64) if v & sum(1 << bit for bit in bits) == place]
            assert {int(table[v]) for v in others} == {level + kernel_header.LEVEL_BIAS}


def test_sizes_and_signs_are_the_levels() -> None:
    for rate, levels in tcq.LEVELS.items():
        sizes = kernel_header.sizes(rate)
        for index, level in enumerate(levels):
            i = mirrored(rate, index)
            assert level == (sizes[i & 0x7F] if i & 0x80 else -sizes[i])
