"""Stored bytes back to weights on the training device: TCQ there, other types through ggml on the CPU.

The arithmetic of TCQ is that of formats/tcq.py with tensors for arrays, and exact: tests compare every bit.
"""

from functools import cache

import torch

from gguf_golf.formats import tcq
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.formats.tcq import TcqFormat
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
        index |= bits[:, position].int() << (tcq.N_PARITIES + b)
    weights = tables.levels[index.long()]
    positions, choice = _slot_fields(fmt, blocks)
    weights.scatter_add_(1, positions, tables.slots[choice])
    return tables.scales[(blocks[:, fmt.scale_offset] >> fmt.scale_shift).long()].unsqueeze(1) * weights


def _slot_fields(fmt: TcqFormat, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See `tcq.slot_fields`."""
    slots = blocks[:, fmt.slot_offset :].long()
    if fmt.block_size == 64:
        return slots[:, :1] & 63, slots[:, 0] >> 6
    side = slots[:, 0] | slots[:, 1] << 8 | slots[:, 2] << 16 | slots[:, 3] << 24
    gaps = torch.stack((side & 0xFF, side >> 8 & 0x7F, side >> 15 & 0x7F), dim=1)
    no_gap = (gaps == 0).long()
    return gaps.cumsum(1) & 0xFF, side >> 22 & 7 | no_gap[:, 1] << 3 | no_gap[:, 2] << 4


class _Tables:
    """The constants of one format on one device; levels and slots as floats, in which small integers are exact."""

    def __init__(self, fmt: TcqFormat, device: str) -> None:
        def put(values: object, dtype: torch.dtype) -> torch.Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        self.shifts = put(range(8), torch.uint8)
        self.order = put(tcq.chain_order(fmt.block_size), torch.long)
        self.subset = put(tcq.subset_table(), torch.int32)
        self.lo_bits = [put(p + 8 * fmt.lo_offset, torch.long) for p in tcq.lo_bit_positions(fmt).T]
        self.levels = put(tcq.LEVELS[fmt.rate], torch.float32)
        self.slots = put(tcq.slot_values(fmt), torch.float32)
        self.scales = put(tcq.scales(fmt), torch.float32)

    @staticmethod
    @cache
    def on(fmt: TcqFormat, device: str) -> "_Tables":
        return _Tables(fmt, device)
