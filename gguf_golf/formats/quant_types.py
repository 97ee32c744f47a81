"""Every tensor type by name and id: mainline ggml's and ours, with exact sizes.

`register_with_gguf` teaches gguf-py our types, so that its reader, writer and dequantizer take them like its own.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, quants
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.formats import tcq
from gguf_golf.formats.tcq import TcqFormat

_GGUF_V3 = 1405  # the build that brought version 3 of GGUF, the one that is written here

_TCQ_FIRST_ID = {256: 112, 64: 118}
"""ggml id of rate 1 in each packing; rates follow one by one. 117 and 123-127 stay free; GGML_TYPE_COUNT is 128."""

_TCQ_FIRST_FILE_TYPE = 112
"""LLAMA_FTYPE_MOSTLY_TCQ1 of patches/0003-llama-tcq-ftypes.patch; a rate has one file type in both packings."""


@dataclass(frozen=True)
class QuantType:
    """A ggml tensor type, `block_size` weights in `type_size` bytes, and all that depends on the type.

    family: float, number (F64 and integers: never weights), legacy (blocks of 32), k, iq, ternary, fp4, binary or tcq.
    is_stock: whether unpatched llama.cpp has it.
    since: the first build of llama.cpp that reads its present layout (2281 is b2281); None where not established.
    needs_imatrix: cannot be made without knowing which weights matter: llama.cpp refuses, or produces nonsense.
    is_self_contained: False where decoding takes numbers from outside the tensor (NVFP4's second scale).
    fallback: the next type to try where the block does not divide the row; for stock types llama-quantize's choice.
    file_type: llama.cpp's number (`enum llama_ftype`) for a file that is mostly of this type; it only names the file.
    tcq: rate and packing of a TCQ type, else None.
    """

    name: str
    id: int
    block_size: int
    type_size: int
    family: str
    is_stock: bool = True
    since: int | None = None
    needs_imatrix: bool = False
    is_self_contained: bool = True
    fallback: str = "f16"
    file_type: int = int(LlamaFileType.ALL_F32)
    tcq: TcqFormat | None = None

    @property
    def bpw(self) -> float:
        """Bits per weight, exactly."""
        return 8 * self.type_size / self.block_size

    @property
    def is_quantized(self) -> bool:
        """False for the plain number types (F32, F16, BF16, F64, integers)."""
        return self.family not in ("float", "number")

    @property
    def holds_weights(self) -> bool:
        """Whether a weight tensor can have this type."""
        return self.family != "number"

    @property
    def activations(self) -> str | None:
        """What the CPU backend rounds the other factor of a product to: 8 bits, with a scale for 256, 64 or 32 numbers.

        Products with TCQ have one scale for each block of weights (ggml-cpu/tcq-matmul.c), whatever ggml's traits say.
        """
        if not self.is_quantized:
            return None
        if self.block_size == 256:
            return "q8_k"
        return "q8_64" if self.tcq else "q8_0"

    @property
    def encodes_slowly(self) -> bool:
        """Whether ggml's encoder searches a codebook, which takes ten to a hundred times as long as the others'."""
        return self.family == "iq"

    def divides(self, row_length: int) -> bool:
        """Whether rows of this length can be stored in this type."""
        return row_length % self.block_size == 0

    def row_bytes(self, row_length: int) -> int:
        """Bytes of one row; raises InputError where the block does not divide the row."""
        if not self.divides(row_length):
            raise InputError(
                f"rows of {row_length} weights cannot be stored as {self.name}, in blocks of {self.block_size}"
            )
        return row_length // self.block_size * self.type_size


# fmt: off
_MAINLINE: tuple[tuple[str, str, int | None, bool, str], ...] = (
    # name      family     since     imatrix  fallback
    ("f32",     "float",   _GGUF_V3, False,   "f32"),
    ("f16",     "float",   _GGUF_V3, False,   "f16"),
    ("bf16",    "float",   2808,     False,   "bf16"),
    ("f64",     "number",  2434,     False,   "f64"),
    ("i8",      "number",  _GGUF_V3, False,   "i8"),
    ("i16",     "number",  _GGUF_V3, False,   "i16"),
    ("i32",     "number",  _GGUF_V3, False,   "i32"),
    ("i64",     "number",  2434,     False,   "i64"),
    ("q4_0",    "legacy",  _GGUF_V3, False,   "f16"),
    ("q4_1",    "legacy",  _GGUF_V3, False,   "f16"),
    ("q5_0",    "legacy",  _GGUF_V3, False,   "f16"),
    ("q5_1",    "legacy",  _GGUF_V3, False,   "f16"),
    ("q8_0",    "legacy",  _GGUF_V3, False,   "f16"),
    ("q2_k",    "k",       _GGUF_V3, False,   "q4_0"),
    ("q3_k",    "k",       _GGUF_V3, False,   "q4_0"),
    ("q4_k",    "k",       _GGUF_V3, False,   "q5_0"),
    ("q5_k",    "k",       _GGUF_V3, False,   "q5_1"),
    ("q6_k",    "k",       _GGUF_V3, False,   "q8_0"),
    ("iq1_s",   "iq",      2404,     True,    "iq4_nl"),  # present layout: #5999
    ("iq1_m",   "iq",      2539,     True,    "iq4_nl"),
    ("iq2_xxs", "iq",      1792,     True,    "iq4_nl"),
    ("iq2_xs",  "iq",      1827,     True,    "iq4_nl"),
    ("iq2_s",   "iq",      2275,     True,    "iq4_nl"),
    ("iq3_xxs", "iq",      2015,     True,    "iq4_nl"),
    ("iq3_s",   "iq",      2316,     False,   "iq4_nl"),  # present codebook: #5829
    ("iq4_nl",  "iq",      2221,     False,   "f16"),
    ("iq4_xs",  "iq",      2281,     False,   "iq4_nl"),
    ("tq1_0",   "ternary", None,     False,   "q4_0"),
    ("tq2_0",   "ternary", None,     False,   "q4_0"),
    ("mxfp4",   "fp4",     None,     False,   "f16"),
    ("nvfp4",   "fp4",     None,     False,   "f16"),
    ("q1_0",    "binary",  None,     False,   "f16"),
)
# fmt: on
"""Mainline's types; gguf-py has their numbers and sizes.

A build's number counts the commits up to it, so `since` is `git rev-list --count` of the commit that brought the type,
or changed what its bits mean for the last time.
"""


def _mainline(name: str, family: str, since: int | None, needs_imatrix: bool, fallback: str) -> QuantType:
    member = GGMLQuantizationType[name.upper()]
    block_size, type_size = gguf.GGML_QUANT_SIZES[member]
    return QuantType(
        name,
        int(member),
        block_size,
        type_size,
        family=family,
        since=since,
        needs_imatrix=needs_imatrix,
        is_self_contained=name != "nvfp4",
        fallback=fallback,
        file_type=_file_type(name),
    )


def _file_type(name: str) -> int:
    for member in (f"MOSTLY_{name.upper()}", f"MOSTLY_{name.upper()}_M", f"MOSTLY_{name.upper()}_S"):
        if member in LlamaFileType.__members__:
            return int(LlamaFileType[member])
    return int(LlamaFileType.ALL_F32)


def _tcq(rate: int, block_size: int) -> QuantType:
    fmt = TcqFormat(rate, block_size)
    return QuantType(
        f"tcq{rate}{_PACKINGS[block_size]}",
        _TCQ_FIRST_ID[block_size] + rate - 1,
        block_size,
        fmt.type_size,
        family="tcq",
        is_stock=False,
        fallback=f"tcq{rate}{_PACKINGS[64]}" if block_size == 256 else tcq.RATES[rate].fallback,
        file_type=_TCQ_FIRST_FILE_TYPE + rate - 1,
        tcq=fmt,
    )


_PACKINGS = {256: "", 64: "_64"}

MAINLINE: dict[str, QuantType] = {row[0]: _mainline(*row) for row in _MAINLINE}
"""Mainline's types by lower-case name: those that gguf-py can write."""

TCQ: dict[str, QuantType] = {t.name: t for t in (_tcq(rate, size) for size in _PACKINGS for rate in tcq.RATES)}
"""Our types by name."""

TCQ_FORMATS: dict[str, TcqFormat] = {t.name: t.tcq for t in TCQ.values() if t.tcq}
"""Their rate and packing."""

ALL: dict[str, QuantType] = {**MAINLINE, **TCQ}
_BY_ID = {t.id: t for t in ALL.values()}


def one_more_bit(quant_type: QuantType) -> QuantType | None:
    """The TCQ type of the next rate; None for the highest rate, and for other families."""
    if quant_type.tcq is None:
        return None
    rate = quant_type.tcq.rate + 1
    return next((each for each in TCQ.values() if each.tcq and each.tcq.rate == rate), None)


def nearest_tcq(bpw: float) -> QuantType:
    """The TCQ type whose bits per weight are nearest to these."""
    return min(TCQ.values(), key=lambda quant_type: abs(quant_type.bpw - bpw))


def get(name_or_id: str | int) -> QuantType:
    """The type of this name (any case) or ggml id; raises InputError that lists the names."""
    found = ALL.get(name_or_id.lower()) if isinstance(name_or_id, str) else _BY_ID.get(int(name_or_id))
    if found is None:
        raise InputError(f"there is no tensor type {name_or_id!r}; types are {', '.join(sorted(ALL))}")
    return found


def type_for_row(name: str, row_length: int) -> tuple[QuantType, str | None]:
    """The type that `--type name` means for rows of this length, and a note if it is not the named one.

    tcqR becomes tcqR_64 on rows that 64 divides and 256 does not; other types fall back as llama-quantize has them do.
    """
    wanted = get(name)
    chosen = wanted
    while not chosen.divides(row_length):
        chosen = get(chosen.fallback)
    if chosen is wanted:
        return chosen, None
    return chosen, f"rows of {row_length}: {chosen.name} ({chosen.bpw:.4g} bpw) instead of {wanted.name}"


@cache
def register_with_gguf() -> None:
    """Teach gguf-py our types: enum members, sizes, and dequantization; does nothing the second time."""
    for name, fmt in TCQ_FORMATS.items():
        _register(name.upper(), TCQ[name], fmt)


def _register(member_name: str, quant_type: QuantType, fmt: TcqFormat) -> None:
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
