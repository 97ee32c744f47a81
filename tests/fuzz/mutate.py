"""Damage to valid files: structure-aware, deterministic given a random generator, one function per kind of file.

A mutator takes the bytes of a valid file and a `random.Random`, and returns other bytes. Most inputs get one change,
some several, so that readers are reached behind their first check.
"""

import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

INTEGERS = (0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 10**30)
"""Sizes and counts at which readers overflow, allocate or loop."""

VALUES: tuple[Any, ...] = (
    *INTEGERS,
    *(None, True, False, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "../../outside", "/absolute", "\x1b[31mred\x1b[0m", "a\x00b", "\u2028", "1", "nan", "é" * 300),
    *([], {}, [[]], [None], {"": None}, [1, "a"], list(range(300))),
)
"""What stands in place of a JSON value: other types, extremes, paths that leave the folder, control characters."""


def repeated(mutate: Mutator) -> Mutator:
    """A mutator that applies `mutate` once, or for a quarter of the inputs two to four times."""

    def several(data: bytes, rng: random.Random) -> bytes:
        for _ in range(1 if rng.random() < 0.75 else rng.randint(2, 4)):
            data = mutate(data, rng)
        return data

    return several


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat, exchange, or overwrite with an extreme integer."""
    if not data:
        return rng.randbytes(rng.randint(0, 64))
    # half of the changes fall into the first 512 bytes, where headers are
    at = rng.randrange(min(len(data), 512) if rng.random() < 0.5 else len(data))
    end = at + rng.randint(1, 1 << rng.randint(0, 10))
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
        lambda: data[:at],
        lambda: data[:at] + rng.randbytes(end - at) + data[at:],
        lambda: data[:end] + data[at:],
        lambda: data[:at] + data[end:],
        lambda: _overwrite(data, at, rng.choice((1, 2, 4, 8)), rng),
    )
    return rng.choice(changes)()


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Change lines, numbers or characters of a text: for CSV, TOML, and lists of labels."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, rng.choice(lines))
    elif kind == 2:
        value = rng.choice(VALUES)
        token = (
            str(value).lower() if isinstance(value, bool) else json.dumps(value) if rng.random() < 0.5 else str(value)
        )
        lines[at] = _replace_one(rb'"[^"]*"|[\w.+-]+', lines[at], token.encode("utf-8", "replace"), rng)
    elif kind == 3:
        lines[at] = _replace_one(
            rb"[,=\[\]{}\"'#\t ]", lines[at], rng.choice((b"", b",", b'"', b"=", b"[", b"\r")), rng
        )
    elif kind == 4:
        lines[at] *= rng.choice((2, 50))
    else:
        return mutate_bytes(data, rng)
    return b"\n".join(lines)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove, rename or repeat one node of a document; a tenth of the inputs are damaged as text."""
    if rng.random() < 0.1:
        return mutate_text(data, rng)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    return json.dumps(_changed(document, rng)).encode("utf-8", "surrogatepass")


def mutate_json_lines(data: bytes, rng: random.Random) -> bytes:
    """One line of JSON lines changed as a document, or the text itself."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.3 or not lines[at].strip():
        return mutate_text(data, rng)
    lines[at] = mutate_json(lines[at], rng)
    return b"\n".join(lines)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The JSON header changed with its length kept true, or the bytes."""
    if rng.random() < 0.3 or len(data) < 8:
        return mutate_bytes(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header = mutate_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def mutate_gguf(data: bytes, rng: random.Random) -> bytes:
    """One field of the header (a count, length, type, dimension, offset or value) overwritten, or the bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng)
    fields = _gguf_fields(data)
    if not fields:
        return mutate_bytes(data, rng)
    at, width = rng.choice(fields)
    return _overwrite(data, at, width, rng)


def _changed(document: Any, rng: random.Random) -> Any:
    """The document with one node changed; nodes are chosen evenly over all depths."""
    path: list[Any] = []
    node = document
    while isinstance(node, dict | list) and node and rng.random() < 0.85:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        path.append(key)
        node = node[key]
    if not path:
        return rng.choice(VALUES)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    last = path[-1]
    kind = rng.random()
    if kind < 0.6:
        parent[last] = rng.choice(VALUES)
    elif kind < 0.8:
        del parent[last]
    elif isinstance(parent, dict):
        parent[rng.choice((f"{last}x", "", str(last).upper(), "a\x1b[2Jb"))] = parent.pop(last)
    else:
        parent.insert(last, parent[rng.randrange(len(parent))])
    return document


def _replace_one(pattern: bytes, line: bytes, new: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(pattern, line))
    if not found:
        return line + new
    match = rng.choice(found)
    return line[: match.start()] + new + line[match.end() :]


def _overwrite(data: bytes, at: int, width: int, rng: random.Random) -> bytes:
    value = rng.choice(INTEGERS) if rng.random() < 0.8 else rng.getrandbits(64)
    new = (value & (2 ** (8 * width) - 1)).to_bytes(width, "little")
    return data[:at] + new + data[at + width :]


_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9


def _gguf_fields(data: bytes) -> list[tuple[int, int]]:
    """(offset, width) of every field of a GGUF header; only as far as it can be followed."""
    fields = [(4, 4), (8, 8), (16, 8)]
    try:
        n_tensors, n_kv = struct.unpack_from("<QQ", data, 8)
        at = 24

        def string(at: int) -> int:
            fields.append((at, 8))
            (length,) = struct.unpack_from("<Q", data, at)
            fields.append((at + 8, min(8, max(1, length))))
            return at + 8 + int(length)

        def value(at: int, kind: int) -> int:
            if kind == _STRING:
                return string(at)
            if kind == _ARRAY:
                fields.extend([(at, 4), (at + 4, 8)])
                element, count = struct.unpack_from("<IQ", data, at)
                at += 12
                for _ in range(min(count, 1000)):
                    at = value(at, element)
                return at
            fields.append((at, _SCALARS[kind]))
            return at + _SCALARS[kind]

        for _ in range(min(n_kv, 1000)):
            at = string(at)
            fields.append((at, 4))
            at = value(at + 4, struct.unpack_from("<I", data, at)[0])
        for _ in range(min(n_tensors, 1000)):
            at = string(at)
            fields.append((at, 4))
            (n_dims,) = struct.unpack_from("<I", data, at)
            fields.extend((at + 4 + 8 * i, 8) for i in range(min(n_dims, 8)))
            at += 4 + 8 * n_dims
            fields.extend([(at, 4), (at + 4, 8)])
            at += 12
    except (struct.error, KeyError, RecursionError, OverflowError):
        pass
    return [(at, width) for at, width in fields if at >= 0 and at + width <= len(data)]
