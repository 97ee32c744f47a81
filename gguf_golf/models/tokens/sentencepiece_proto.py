"""What a sentencepiece model file says that the library's Python interface does not: types of pieces, normalization.

The file is a protobuf message (sentencepiece_model.proto); the few fields needed are read from the wire format, so that
the protobuf library is not.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class PieceType(IntEnum):
    """SentencePiece.Type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(IntEnum):
    """TrainerSpec.ModelType."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class Piece(NamedTuple):
    """One entry of the vocabulary; its id is its position."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True)
class SentencePieceModel:
    """The parts of a ModelProto that decide how a text is cut. Defaults are those of the .proto file."""

    pieces: list[Piece]
    model_type: ModelType
    treat_whitespace_as_suffix: bool
    normalizer: str  # "identity", "nmt_nfkc", ...
    has_charsmap: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    special_ids: dict[str, int]  # of unk, bos, eos and pad, where the model has them


SPECIAL = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}  # kind -> field of TrainerSpec, default

Value = int | bytes


def parse_model(data: bytes) -> SentencePieceModel:
    """Read a serialized ModelProto. Raises ValueError if it is none."""
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _fields(data):
        if number in (1, 2, 3) and not isinstance(value, bytes):
            raise ValueError(f"field {number} is not a message")
        if number == 1 and isinstance(value, bytes):
            pieces.append(_piece(dict(_fields(value))))
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
    return SentencePieceModel(
        pieces,
        ModelType(_integer(trainer, 3, ModelType.UNIGRAM)),
        bool(_integer(trainer, 24, 0)),
        _bytes(normalizer, 1).decode("utf-8"),
        bool(_bytes(normalizer, 2)),
        bool(_integer(normalizer, 3, 1)),
        bool(_integer(normalizer, 4, 1)),
        bool(_integer(normalizer, 5, 1)),
        {kind: i for kind, field in SPECIAL.items() if 0 <= (i := _integer(trainer, *field)) < len(pieces)},
    )


def _piece(fields: dict[int, Value]) -> Piece:
    (score,) = struct.unpack("<f", _bytes(fields, 2) or bytes(4))
    return Piece(_bytes(fields, 1).decode("utf-8"), score, PieceType(_integer(fields, 3, PieceType.NORMAL)))


def _integer(fields: dict[int, Value], number: int, default: int) -> int:
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} is not an integer")
    return value if value < 1 << 63 else value - (1 << 64)


def _bytes(fields: dict[int, Value], number: int) -> bytes:
    value = fields.get(number, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is an integer")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) of each field of a message: varints as int, the other wire types as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("truncated")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position after it)."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("truncated")
