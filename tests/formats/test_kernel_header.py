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
