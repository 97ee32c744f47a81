"""Which type each matrix of a file has: a grid of layer x projection, what stands outside it, and the bytes by type."""

import re
from dataclasses import dataclass

from gguf_golf.models.roles import kind
from gguf_golf.report import words
from gguf_golf.report.results import Model, Tensor

CELL = 16
LEFT = 84
TOP = 16
_LAYER = re.compile(r"blk\.(\d{1,4})\.")


@dataclass(frozen=True)
class Cell:
    """One matrix: its corner in pixels, its colour (bits per weight, rounded) and what is said of it."""

    x: int
    y: int
    level: int
    tip: str


@dataclass(frozen=True)
class TypeShare:
    """All tensors of one type."""

    type: str
    bpw: float
    level: int
    tensors: int
    bytes: int


@dataclass(frozen=True)
class TypeMap:
    """`rows` and `columns` are (pixel, text): projections, and numbers of some layers. `outside`: the vocabulary."""

    cells: list[Cell]
    rows: list[tuple[int, str]]
    columns: list[tuple[int, str]]
    outside: list[tuple[Tensor, int]]
    types: list[TypeShare]
    width: int
    height: int


def type_map(model: Model) -> TypeMap | None:
    """The map of a model's matrices; norms and biases only count in `types`. None if tensors are not listed."""
    matrices = [tensor for tensor in model.tensors if len(tensor.shape) > 1]
    if not matrices:
        return None
    inside = [(int(found[1]), tensor) for tensor in matrices if (found := _LAYER.match(tensor.name))]
    kinds = list(dict.fromkeys(kind(tensor.name) for _, tensor in sorted(inside, key=lambda pair: pair[0])))
    kinds.sort(key=lambda name: (name.startswith("ffn"), not name.startswith("attn")))
    layers = sorted({layer for layer, _ in inside})
    at = {layer: LEFT + CELL * i for i, layer in enumerate(layers)}
    row = {name: TOP + CELL * i for i, name in enumerate(kinds)}
    every = max(1, len(layers) // 8)
    return TypeMap(
        cells=[Cell(at[layer], row[kind(t.name)], level(t.bpw), _tip(t)) for layer, t in inside],
        rows=[(y + CELL // 2, name) for name, y in row.items()],
        columns=[(at[layer] + CELL // 2, str(layer)) for i, layer in enumerate(layers) if i % every == 0],
        outside=[(tensor, level(tensor.bpw)) for tensor in matrices if not _LAYER.match(tensor.name)],
        types=_types(model),
        width=LEFT + CELL * max(1, len(layers)),
        height=TOP + CELL * len(kinds),
    )


def level(bpw: float) -> int:
    """The colour step of a type: its whole bits per weight up to 8; 9 for anything wider."""
    return 9 if bpw > 9 else max(1, min(8, int(bpw + 0.45)))


def _tip(tensor: Tensor) -> str:
    shape = " x ".join(str(side) for side in tensor.shape)
    return (
        f"{tensor.name}\n{tensor.type}, {words.number(tensor.bpw)} bits per weight\n{shape}, {words.size(tensor.bytes)}"
    )


def _types(model: Model) -> list[TypeShare]:
    by_type: dict[str, list[Tensor]] = {}
    for tensor in model.tensors:
        by_type.setdefault(tensor.type, []).append(tensor)
    shares = [
        TypeShare(name, tensors[0].bpw, level(tensors[0].bpw), len(tensors), sum(t.bytes for t in tensors))
        for name, tensors in by_type.items()
    ]
    return sorted(shares, key=lambda share: -share.bytes)
