"""Weights that lie on a quantization lattice already, as those of a release after quantization-aware training do.

Such a release holds code times scale in BF16 or F32. A type whose blocks have that lattice stores it at a fraction of
the bytes and gives every weight back, so nothing is lost. ggml's own quantizers search the best approximation, and miss
the lattice where the largest weight of a block has another code than they expect; here the scale is solved for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.runtime import ggml

_SAMPLED_ROWS, _SAMPLED_WEIGHTS = 4, 64
"""The sample of each tensor: rows, evenly spaced, and weights of each."""

_CONFIRMED_WEIGHTS = 1 << 20
"""Weights read at a time, where a whole tensor is looked at."""

_SOLVED_BLOCKS, _SOLVED_NUMBERS = 1 << 11, 1 << 17
"""Blocks that are solved at a time, and weights times tries: the arrays stay in the processor's cache."""

_SCALES_ASIDE = {"BF16": 9, "F16": 2}
"""How many F16 numbers the scale can be away from the largest weight over its code, as that weight was rounded. Sources
of other types hold code times scale as it is."""

_LARGEST_F16 = 0x7BFF


@dataclass(frozen=True)
class _Integers:
    """Blocks of 32 integer codes first..last times an F16 scale."""

    first: int
    last: int

    def tries(self, aside: int) -> NDArray[np.int32]:
        """What the scale can be, i32 [n, 2]: the code of the largest weight, and F16 numbers aside of their quotient.

        The codes that quantizers give the largest weight come first, and the nearest scales.
        """
        offsets = sorted(range(-aside, aside + 1), key=abs)
        usual, others = (self.first, self.last), range(self.last - 1, 0, -1)
        first = [(code, offset) for offset in offsets for code in usual]
        return np.array([*first, *((code, offset) for code in others for offset in offsets)], np.int32)


_INTEGERS = {"q4_0": _Integers(-8, 7), "q5_0": _Integers(-16, 15), "q8_0": _Integers(-128, 127)}

LATTICES = ("mxfp4", *_INTEGERS)
"""The types that a tensor can be kept in, the smallest first."""


def find(model: Model, chosen: Mapping[str, QuantType]) -> dict[str, QuantType]:
    """The tensors that a type of no more bits than the chosen one reproduces exactly, each with the smallest such type.

    "Exactly" means bit for bit in the source's precision: a BF16 source holds its lattice rounded to BF16. Reads a
    sample of each tensor, and all of those whose sample is on a lattice. Raises DataError for weights that are not
    finite.
    """
    found = {}
    for tensor in model.tensors:
        for quant_type in map(quant_types.get, LATTICES):
            if not (is_quantizable(tensor) and quant_type.divides(tensor.shape[-1])):
                continue
            if quant_type.bpw <= chosen[tensor.name].bpw and _is_on(tensor, quant_type):
                found[tensor.name] = quant_type
                break
    return found


def note(found: Mapping[str, QuantType]) -> list[str]:
    """What a user should know of the tensors that `find` found."""
    counts = {t.name: sum(other is t for other in found.values()) for t in found.values()}
    return [
        f"{count} tensor{'s' * (count > 1)} stored as {name}, exactly: the weights lie on its lattice already "
        "(--no-keep-lattice encodes them like the others)"
        for name, count in counts.items()
    ]


def encode(rows: NDArray[np.float32], quant_type: QuantType, source_type: str) -> NDArray[np.uint8] | None:
    """Rows f32 [n, k] as bytes u8 [n, row_bytes] that decode to them, once rounded to `source_type`; None if they
    are not on the lattice of the type, one of LATTICES."""
    if quant_type.name in _INTEGERS:
        blocks = _solve(rows.reshape(-1, quant_type.block_size), _INTEGERS[quant_type.name], source_type)
        if blocks is None:
            return None
        return _pack(*blocks, quant_type).reshape(len(rows), -1)
    data = ggml.quantize(quant_type.id, rows, threads=1)
    decoded = ggml.dequantize(quant_type.id, data, len(rows), rows.shape[1], threads=1)
    return data if np.array_equal(_rounded(decoded, source_type), rows) else None


def _is_on(tensor: LazyTensor, quant_type: QuantType) -> bool:
    """Whether every weight of the tensor is on the type's lattice; a tensor of zeros is on none."""
    sampled = np.unique(np.linspace(0, tensor.n_rows - 1, _SAMPLED_ROWS).astype(int))
    sample = np.concatenate([tensor.load_rows(int(row), int(row) + 1)[:, :_SAMPLED_WEIGHTS] for row in sampled])
    if encode(sample, quant_type, tensor.source_type) is None:
        return False
    step, has_weights = max(1, _CONFIRMED_WEIGHTS // tensor.shape[-1]), False
    for first in range(0, tensor.n_rows, step):
        rows = tensor.load_rows(first, min(first + step, tensor.n_rows))
        if encode(rows, quant_type, tensor.source_type) is None:
            return False
        has_weights |= bool(rows.any())
    return has_weights


def _solve(
    blocks: NDArray[np.float32], integers: _Integers, source_type: str
) -> tuple[NDArray[np.float16], NDArray[np.int8]] | None:
    """A scale f16 [n] and codes i8 [n, 32] for blocks f32 [n, 32] such that their product, rounded, is each weight."""
    scales, codes = np.zeros(len(blocks), np.float16), np.zeros(blocks.shape, np.int8)
    nonzero = np.flatnonzero(blocks.any(axis=1))
    tries = integers.tries(_SCALES_ASIDE.get(source_type, 0))
    # a block of its own at first: weights that are on no lattice are known by it
    for some in np.split(nonzero, range(1, nonzero.size, _SOLVED_BLOCKS)):
        left, tried = some, 0
        while left.size:
            if tried == len(tries):
                return None
            now = tries[tried : tried + max(4, _SOLVED_NUMBERS // (32 * left.size))]
            with np.errstate(over="ignore"):
                scales[left], codes[left], solved = _try(blocks[left], now, integers, source_type)
            left, tried = left[~solved], tried + len(now)
    return scales, codes


def _try(
    blocks: NDArray[np.float32], tries: NDArray[np.int32], integers: _Integers, source_type: str
) -> tuple[NDArray[np.float16], NDArray[np.int8], NDArray[np.bool_]]:
    """For each block the scale and codes of the first try that is a solution, and whether one is."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    nearest = (largest / tries[:, 0].astype(np.float32)).astype(np.float16)
    magnitudes = np.abs(nearest).view(np.uint16).astype(np.int32) + tries[:, 1]  # as many F16 numbers further
    magnitudes = np.clip(magnitudes, 1, _LARGEST_F16).astype(np.uint16).view(np.float16)
    scales = np.copysign(magnitudes, nearest)  # [n, tries]
    exact = scales.astype(np.float32)[:, :, np.newaxis]
    weights = blocks[:, np.newaxis, :]
    codes = np.clip(np.rint(weights / exact), integers.first, integers.last)
    solved = (_rounded(exact * codes, source_type) == weights).all(axis=2)
    at = np.arange(len(blocks)), solved.argmax(axis=1)
    return scales[at], codes[at].astype(np.int8), solved[at]


def _rounded(values: NDArray[np.float32], source_type: str) -> NDArray[np.float32]:
    """To the nearest value of the source's type, ties to even."""
    if source_type == "F16":
        return values.astype(np.float16).astype(np.float32)
    if source_type == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def _pack(scales: NDArray[np.float16], codes: NDArray[np.int8], quant_type: QuantType) -> NDArray[np.uint8]:
    """ggml's blocks: the scale, then the fifth bits of Q5_0, then nibbles (code j beside code j + 16) or bytes."""
    parts = [scales.view(np.uint8).reshape(-1, 2)]
    if quant_type.name == "q8_0":
        return np.concatenate([*parts, codes.view(np.uint8)], axis=1)
    unsigned = (codes - np.int8(_INTEGERS[quant_type.name].first)).astype(np.uint8)
    if quant_type.name == "q5_0":
        parts.append(np.packbits(unsigned >> 4, axis=1, bitorder="little"))
    low, high = unsigned[:, :16] & 15, unsigned[:, 16:] & 15
    return np.concatenate([*parts, low | high << 4], axis=1)
