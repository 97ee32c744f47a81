"""How the golden blocks were made, once: random bytes, so that every field takes every value, and gaps of 0. Never run
it again for a released type: its bytes keep their meaning for ever, and these files are what guards that.
"""

from pathlib import Path

import numpy as np

from gguf_golf.formats import quant_types, tcq

for name, fmt in quant_types.TCQ_FORMATS.items():
    blocks = np.random.default_rng(quant_types.TCQ[name].id).integers(0, 256, (64, fmt.type_size), np.uint8)
    if fmt.block_size == 256:
        blocks[:12, fmt.slot_offset + 1] &= 0x80  # gap 1
        blocks[8:20, fmt.slot_offset + 1] &= 0x7F  # gap 2
        blocks[8:20, fmt.slot_offset + 2] &= 0xC0
    np.savez_compressed(
        Path(__file__).with_name(f"{name}.npz"),
        blocks=blocks,
        integers=tcq.integer_weights(fmt, blocks).astype(np.int16),
        weights=tcq.dequantize(fmt, blocks),
    )
