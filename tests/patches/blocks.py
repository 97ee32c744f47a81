"""Random blocks of the TCQ types, for tests of kernels."""

import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats import quant_types, tcq

Blocks = NDArray[np.uint8]


def any_blocks(name: str, n: int, rng: np.random.Generator) -> Blocks:
    """`n` blocks (n, type_size) of random bits; three in four of 256 weights have a gap of 0, or two."""
    fmt = quant_types.TCQ_FORMATS[name]
    blocks = rng.integers(0, 256, (n, fmt.type_size), np.uint8)
    if fmt.block_size == 256:
        side = blocks[:, fmt.slot_offset :].view("<u4")[:, 0]
        side[1::4] &= ~np.uint32(0x7F << 8)
        side[2::4] &= ~np.uint32(0x7F << 15)
        side[3::4] &= ~np.uint32(0x3FFF << 8)
        blocks[:, fmt.slot_offset :] = side[:, None].view(np.uint8)
    return blocks


def small_blocks(name: str, n: int, rng: np.random.Generator) -> Blocks:
    """The same with scales near 1/64, so that products stay small."""
    fmt = quant_types.TCQ_FORMATS[name]
    blocks = any_blocks(name, n, rng)
    scales = tcq.scales(fmt)
    chosen = rng.choice(np.flatnonzero((scales >= 2**-7) & (scales < 2**-5)), n)
    below = blocks[:, fmt.scale_offset] & ((1 << fmt.scale_shift) - 1)  # bits of the slots in the scale's byte
    blocks[:, fmt.scale_offset] = chosen << fmt.scale_shift | below
    return blocks
