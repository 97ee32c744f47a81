"""Stored bytes back to weights on the training device: TCQ there, other types through ggml on the CPU.

The arithmetic of TCQ is that of formats/tcq.py with tensors for arrays, and exact: tests compare every bit.
"""

from functools import cache

import torch

from gguf_golf.formats import tcq
from gguf_golf.formats.tcq import TcqFormat
from gguf_golf.formats.types import QuantType
from gguf_golf.runtime import ggml


def decode(
    data: torch.Tensor, quant_type: QuantType, shape: tuple[int, int], device: str, threads: int
) -> torch.Tensor:
    """Weights f32 [n_rows, k] on `device` of the rows `data`, u8 [n_rows, row_bytes] on the CPU."""
    if quant_type.tcq is None or device == "cpu":
        return torch.from_numpy(ggml.dequantize(quant_type.id, data.numpy(), *shape, threads)).to(device)
    return _decode_tcq(quant_type.tcq, data.to(device).view(-1, quant_type.type_size)).view(shape)


def _decode_tcq(fmt: TcqFormat, blocks: torch.Tensor) -> torch.Tensor:
    """f32 [n, block_size] of blocks u8 [n, type_size]; see `tcq.level_indices` and `tcq.integer_weights`."""
    tables = _Tables.on(fmt, str(blocks.device))
    bits = ((blocks.unsqueeze(-1) >> tables.shifts) & 1).view(len(blocks), -1)
    path = bits[:, : fmt.block_size].int()
    window = path.clone()
    for b in range(1, tcq.MEMORY + 1):
        window |= path.roll(b, 1) << b
    index = torch.empty_like(window)
    index[:, tables.order] = tables.subset[window.long()]
    for b, position in enumerate(tables.lo_bits):
        index |= bits[:, position].int() << (3 + b)
    weights = tables.levels[index.long()]
    slots = blocks[:, fmt.slot_offset : fmt.scale_offset].long()
    rows = torch.arange(len(blocks), device=blocks.device)
    if fmt.block_size == 256:
        for position, nibble in ((slots[:, 0], slots[:, 2] & 15), (slots[:, 1], slots[:, 2] >> 4)):
            weights[rows, position] += (1 - 2 * (nibble >> 3)) * tables.magnitudes[nibble & 7]
    else:
        slot = slots[:, 0]
        weights[rows, slot & 63] += (1 - 2 * (slot >> 7)) * tables.magnitudes[(slot >> 6) & 1]
    return tables.scales[blocks[:, fmt.scale_offset].long()].unsqueeze(1) * weights


class _Tables:
    """The constants of one format on one device; levels and magnitudes as floats, in which small integers are exact."""

    def __init__(self, fmt: TcqFormat, device: str) -> None:
        def put(values: object, dtype: torch.dtype) -> torch.Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        magnitudes = tcq.SLOT_MAGNITUDES if fmt.block_size == 256 else tcq.SLOT_MAGNITUDES_64
        self.shifts = put(range(8), torch.uint8)
        self.order = put(tcq.chain_order(fmt.block_size), torch.long)
        self.subset = put(tcq.subset_table(), torch.int32)
        self.lo_bits = [put(p + 8 * fmt.lo_offset, torch.long) for p in tcq.lo_bit_positions(fmt).T]
        self.levels = put(tcq.LEVELS[fmt.rate], torch.float32)
        self.magnitudes = put(magnitudes[fmt.rate], torch.float32)
        self.scales = put(tcq.e5m3_scales(), torch.float32)

    @staticmethod
    @cache
    def on(fmt: TcqFormat, device: str) -> "_Tables":
        return _Tables(fmt, device)
