"""Every tensor type by name and id: mainline ggml's and ours, with exact sizes.

`register_with_gguf` teaches gguf-py our types, so that its reader, writer and dequantizer take them like its own.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import gguf
import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.formats import tcq

TCQ_FIRST_ID = {256: 112, 64: 118}
"""ggml id of rate 1 in each packing; rates follow one by one. 117 and 123-127 stay free; GGML_TYPE_COUNT is 128."""

TCQ_FORMATS: dict[str, tcq.TcqFormat] = {
    f"tcq{rate}{'' if block_size == 256 else '_64'}": tcq.TcqFormat(rate, block_size)
    for block_size in (256, 64)
    for rate in range(1, 6)
}


@dataclass(frozen=True)
class QuantType:
    """A ggml tensor type: `block_size` weights in `type_size` bytes."""

    name: str
    id: int
    block_size: int
    type_size: int

    @property
    def bpw(self) -> float:
        """Bits per weight, exactly."""
        return 8 * self.type_size / self.block_size

    @property
    def is_quantized(self) -> bool:
        """False for the plain number types (F32, F16, BF16, integers)."""
        return self.block_size > 1

    @property
    def activations(self) -> str | None:
        """What the CPU backend rounds the other factor of a product to: 8 bits, with a scale for 256, 64 or 32 numbers.

        Products with TCQ have one scale for each block of weights (ggml-cpu/tcq-matmul.c), whatever ggml's traits say.
        """
        if not self.is_quantized:
            return None
        if self.block_size == 256:
            return "q8_k"
        return "q8_64" if self in TCQ.values() else "q8_0"

    def divides(self, row_length: int) -> bool:
        """Whether rows of this length can be stored in this type."""
        return row_length % self.block_size == 0

    def row_bytes(self, row_length: int) -> int:
        """Bytes of one row; raises InputError where the block does not divide the row."""
        if not self.divides(row_length):
            raise InputError(
                f"rows of {row_length} weights cannot be stored as {self.name}: its blocks hold {self.block_size}"
            )
        return row_length // self.block_size * self.type_size


def _tcq_id(fmt: tcq.TcqFormat) -> int:
    return TCQ_FIRST_ID[fmt.block_size] + fmt.rate - 1


# What activations are quantized to on the fly; never in a file, and gguf-py's size of Q8_1 is not ggml's.
_ACTIVATIONS = ("Q8_1", "Q8_K")

MAINLINE: dict[str, QuantType] = {
    member.name.lower(): QuantType(member.name.lower(), int(member), *gguf.GGML_QUANT_SIZES[member])
    for member in GGMLQuantizationType
    if member.name not in _ACTIVATIONS
}
"""Mainline's types by lower-case name, as gguf-py knows them."""

TCQ: dict[str, QuantType] = {
    name: QuantType(name, _tcq_id(fmt), fmt.block_size, fmt.type_size) for name, fmt in TCQ_FORMATS.items()
}
"""Our types by name."""

ALL: dict[str, QuantType] = {**MAINLINE, **TCQ}
_BY_ID = {t.id: t for t in ALL.values()}


def get(name_or_id: str | int) -> QuantType:
    """The type of this name (any case) or ggml id; raises InputError that lists the names."""
    found = ALL.get(name_or_id.lower()) if isinstance(name_or_id, str) else _BY_ID.get(int(name_or_id))
    if found is None:
        raise InputError(f"there is no tensor type {name_or_id!r}; types are {', '.join(sorted(ALL))}")
    return found


FALLBACKS: dict[str, str] = {
    **{f"tcq{rate}": f"tcq{rate}_64" for rate in range(1, 6)},
    **{f"tcq{rate}_64": "q4_0" for rate in range(1, 4)},
    "tcq4_64": "q5_0",
    "tcq5_64": "q8_0",
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"),
    **{"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"},
    **dict.fromkeys(("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4"), "f16"),
}
"""The next type to try where a block does not divide the row; for mainline's types llama-quantize's own choice."""


NEEDS_IMATRIX = frozenset({"iq2_xxs", "iq2_xs", "iq2_s", "iq1_s", "iq1_m"})
"""Types that cannot be made without knowing which weights matter: llama.cpp refuses, or produces nonsense."""


def type_for_row(name: str, row_length: int) -> tuple[QuantType, str | None]:
    """The type that `--type name` means for rows of this length, and a note if it is not the named one.

    tcqR becomes tcqR_64 on rows that 64 divides and 256 does not; other types fall back as in FALLBACKS.
    """
    wanted = get(name)
    chosen = wanted
    while not chosen.divides(row_length):
        chosen = get(FALLBACKS.get(chosen.name, "f16"))
    if chosen is wanted:
        return chosen, None
    return chosen, f"rows of {row_length}: {chosen.name} ({chosen.bpw:.4g} bpw) instead of {wanted.name}"


@cache
def register_with_gguf() -> None:
    """Teach gguf-py our types: enum members, sizes, and dequantization; does nothing the second time."""
    for name, fmt in TCQ_FORMATS.items():
        _register(name.upper(), TCQ[name], fmt)


def _register(member_name: str, quant_type: QuantType, fmt: tcq.TcqFormat) -> None:
    # An int enum cannot be subclassed once it has members, so the member is entered into its tables by hand.
    member = int.__new__(GGMLQuantizationType, quant_type.id)
    member._name_ = member_name
    member._value_ = quant_type.id
    enum = cast(Any, GGMLQuantizationType)
    enum._member_map_[member_name] = member
    enum._member_names_.append(member_name)
    enum._value2member_map_[quant_type.id] = member
    type.__setattr__(GGMLQuantizationType, member_name, member)
    gguf.GGML_QUANT_SIZES[member] = (fmt.block_size, fmt.type_size)

    def dequantize_blocks(cls: type, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
        return tcq.dequantize(fmt, blocks)

    # gguf-py's own way to add a type: subclassing its private quantization class with the enum member.
    base = cast(Any, quants)
    quant_class = base.__dict__["__Quant"]
    type(quant_class)(member_name, (quant_class,), {"dequantize_blocks": classmethod(dequantize_blocks)}, qtype=member)
