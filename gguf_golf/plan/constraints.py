"""What a plan must respect beside the budget: pinned and forbidden types, ties, a floor for embeddings and for speed.

Patterns are shell globs over tensor names, such as `blk.*.attn_v.weight`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models.roles import EMBEDDINGS

NEWEST = 10**9
"""As new as the pinned llama.cpp: types whose first build is not established count as this new."""

KEPT_WITHIN = 0.1
"""A recipe keeps a super weight to this share of its value: a hundredth of the damage of losing it, at most."""


@dataclass(frozen=True)
class Speed:
    """A floor on generated tokens per second, and the nanoseconds that one weight of each type takes."""

    tokens_per_second: float
    ns_per_weight: dict[str, float]

    @property
    def max_seconds(self) -> float:
        """The time that one token may take."""
        return 1 / self.tokens_per_second


@dataclass(frozen=True)
class Constraints:
    """Pins and bans are (pattern, type); a tie is a pattern whose matches share a type, see `groups`.

    `stock` is a build of unpatched llama.cpp that must read the file (4000 is b4000), or NEWEST for the pinned one.
    `protects_rows` allows protected rows.
    """

    stock: int | None = None
    pins: tuple[tuple[str, str], ...] = ()
    bans: tuple[tuple[str, str], ...] = ()
    ties: tuple[str, ...] = ()
    embedding_floor: str | None = None
    speed: Speed | None = field(default=None)
    protects_rows: bool = True

    def protects(self, name: str, residual: QuantType) -> bool:
        """Whether this tensor may have protected rows, which no unpatched llama.cpp reads; a pin is all that it has."""
        pinned = any(fnmatchcase(name, pattern) for pattern, _ in self.pins)
        timed = self.speed is None or residual.name in self.speed.ns_per_weight
        return self.protects_rows and self.stock is None and timed and not pinned

    def allowed(self, name: str, row_length: int, candidates: Sequence[str]) -> list[QuantType]:
        """Those of the candidates that this tensor may take. Raises InputError if none is left."""
        pinned = [type_name for pattern, type_name in self.pins if fnmatchcase(name, pattern)]
        if pinned:
            quant_type, _ = quant_types.type_for_row(pinned[-1], row_length)
            if quant_type.name not in candidates:
                raise InputError(f"{name} is pinned to {quant_type.name}, which is no candidate for it")
            return [quant_type]
        left = [quant_types.get(candidate) for candidate in candidates]
        if self.stock is not None:
            left = [each for each in left if each.is_stock and (each.since or NEWEST) <= self.stock]
        for pattern, type_pattern in self.bans:
            if fnmatchcase(name, pattern):
                left = [quant_type for quant_type in left if not fnmatchcase(quant_type.name, type_pattern.lower())]
        if self.embedding_floor is not None and name in EMBEDDINGS:
            floor, _ = quant_types.type_for_row(self.embedding_floor, row_length)
            left = [quant_type for quant_type in left if quant_type.bpw >= floor.bpw]
        if self.speed is not None:
            left = [quant_type for quant_type in left if quant_type.name in self.speed.ns_per_weight]
        if not left:
            raise InputError(f"the constraints leave no type for {name}: relax a --forbid, --stock or a floor")
        return left

    def groups(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Names in order, those that share a type together.

        A tie's `#` stands for one number: blk.#.attn_[qkv].weight ties q, k and v within each layer, while
        blk.*.attn_v.weight ties the v of all layers. Raises InputError for a tie or pin that matches nothing.
        """
        for pattern in [pattern for pattern, _ in (*self.pins, *self.bans)]:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(f"no tensor is called {pattern}; quote patterns, and write .weight at their end")
        owner: dict[str, tuple[str, str]] = {}
        for tie in self.ties:
            found = [(name, key) for name in names if (key := _tie_key(tie, name)) is not None]
            if not found:
                raise InputError(f"no tensor is called {tie}; quote patterns, and write .weight at their end")
            for name, key in found:
                if name in owner:
                    raise InputError(f"{name} is tied twice, by {owner[name][0]} and by {tie}: write one tie")
                owner[name] = (tie, key)
        members: dict[tuple[str, str], list[str]] = {}
        for name in names:
            members.setdefault(owner.get(name, ("", name)), []).append(name)
        return [tuple(group) for group in members.values()]


def _tie_key(tie: str, name: str) -> str | None:
    """The number that `#` stands for in this name; "" for a tie without one, None if the name does not match."""
    if not fnmatchcase(name, tie.replace("#", "*")):
        return None
    if "#" not in tie:
        return ""
    before = tie.split("#", maxsplit=1)[0]
    number = re.match(r"\d+", name[len(before) :]) if not set(before) & set("*?[") else None
    if number is None or not fnmatchcase(name, tie.replace("#", number[0])):
        return None
    return number[0]


def stock_build(text: str | None) -> int | None:
    """The build that `--stock` names: b4000, 4000, or newest. Raises InputError for anything else."""
    if text is None:
        return None
    if text.lower() == "newest":
        return NEWEST
    if match := re.fullmatch(r"b?(\d+)", text.strip().lower()):
        return int(match[1])
    raise InputError(f"--stock {text}: give a build of llama.cpp, such as b4000, or newest")


def read_speed(path: Path, tokens_per_second: float) -> Speed:
    """The floor on speed, with the `stream_ns_per_weight` of each type in a `gguf-golf bench --json` file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["types"]
        speeds = {row["type"]: float(row["stream_ns_per_weight"]) for row in rows}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with `gguf-golf bench --json {path}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a result of `gguf-golf bench --json` ({error})") from error
    return Speed(tokens_per_second, speeds)
