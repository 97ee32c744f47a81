"""Tensor types that llama.cpp does not have: tells a GGUF file of another program from a damaged one.

Parsers give up at the first unknown type without saying so; this reads the header again for the error's sake.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from gguf_golf.formats.quant_types import ALL

REMOVED = frozenset({4, 5, 31, 32, 33, 36, 37, 38})
"""Ids of types that llama.cpp once had (Q4_2, Q4_3, and the packings of Q4_0 and IQ4_NL)."""

_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9


def foreign_type(path: Path) -> str | None:
    """A sentence about the first tensor of a type that llama.cpp does not have; None if there is none to be found."""
    known = {quant_type.id for quant_type in ALL.values()}
    try:
        for name, type_id in _tensor_types(path):
            if type_id in REMOVED:
                return (
                    f"{path}: tensor {name} has type {type_id}, which llama.cpp has removed: the file is too old; "
                    "take a newer one of the same model, or convert the model again"
                )
            if type_id not in known:
                return (
                    f"{path}: tensor {name} has type {type_id}, which llama.cpp does not have: the file was made for "
                    "a fork of it, such as ik_llama.cpp, or for a newer version; take a file of the same model in "
                    "llama.cpp's types"
                )
    except (OSError, ValueError, KeyError, IndexError, OverflowError, struct.error):
        pass  # damaged: what called this says so
    return None


def _tensor_types(path: Path) -> Iterator[tuple[str, int]]:
    """(name, type id) of every tensor, as far as the header can be read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
        at = 24
        for _ in range(n_keys):
            _, at = _string(data, at)
            (kind,) = struct.unpack_from("<I", data, at)
            at = _skip(data, at + 4, kind)
        for _ in range(n_tensors):
            name, at = _string(data, at)
            (n_dims,) = struct.unpack_from("<I", data, at)
            (type_id,) = struct.unpack_from("<I", data, at + 4 + 8 * n_dims)
            at += 4 + 8 * n_dims + 4 + 8
            yield name, type_id


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise ValueError("a string ends beyond the file")
    return data[at + 8 : min(end, at + 8 + 200)].decode("utf-8", "replace"), end


def _skip(data: mmap.mmap, at: int, kind: int) -> int:
    """The end of a metadata value of this kind that begins at `at`."""
    if kind == _STRING:
        return _string(data, at)[1]
    if kind != _ARRAY:
        return at + _SCALAR_BYTES[kind]
    n: int
    kind, n = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind in _SCALAR_BYTES:
        return at + n * _SCALAR_BYTES[kind]
    if kind != _STRING:
        raise ValueError("an array of arrays")
    for _ in range(n):
        at = _string(data, at)[1]
    return at
