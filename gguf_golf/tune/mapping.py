"""Which rows of which transformers parameter each GGUF tensor is made of, found by comparing values.

llama.cpp's converters permute heads, stack or split experts, transpose, and add one to some norms, each architecture in
its own way. Equal rows say what was done without knowing why, so anything that transformers loads can be mapped.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.models import LazyTensor, Model

_SLAB_WEIGHTS = 1 << 24

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class _Piece:
    """Rows `target` of a GGUF tensor are rows `source` of a parameter, counted over its leading axes."""

    parameter: str
    transposed: bool  # the parameter's last two axes are swapped first
    source: torch.Tensor
    target: torch.Tensor
    whole: bool  # the tensor is the parameter as it is


@dataclass(frozen=True)
class MatrixLink:
    """A GGUF tensor as rows of one or several parameters."""

    name: str
    pieces: tuple[_Piece, ...]

    def gather(self, values: Mapping[str, torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        """The tensor's rows from `values`, which has the parameters' shapes: in `out` f32 [n_rows, k], or where they
        are already."""
        for piece in self.pieces:
            value = values[piece.parameter]
            if piece.whole:
                return value.view(out.shape).to(out.dtype)
            out[piece.target] = _as_rows(value, piece.transposed)[piece.source].to(out.dtype)
        return out

    def scatter(self, rows: torch.Tensor, parameters: Mapping[str, torch.Tensor]) -> None:
        """Put the tensor's rows [n_rows, k] where they belong in the parameters."""
        for piece in self.pieces:
            parameter = parameters[piece.parameter]
            if piece.whole:
                parameter.copy_(rows.view(parameter.shape))
                continue
            moved = rows[piece.target].to(parameter.dtype)
            if not piece.transposed:
                parameter.view(-1, parameter.shape[-1])[piece.source] = moved
                continue
            swapped = parameter.transpose(-1, -2)
            flat = swapped.reshape(-1, swapped.shape[-1])
            flat[piece.source] = moved
            swapped.copy_(flat.view(swapped.shape))

    def to(self, device: str) -> "MatrixLink":
        """The same with its row numbers on a device."""
        pieces = (replace(p, source=p.source.to(device), target=p.target.to(device)) for p in self.pieces)
        return MatrixLink(self.name, tuple(pieces))


@dataclass(frozen=True)
class NormLink:
    """A norm's vector in the GGUF is `scale` * parameter + `offset`."""

    name: str
    parameter: str
    scale: float
    offset: float


def link_matrices(tensors: Iterable[LazyTensor], parameters: Mapping[str, torch.Tensor]) -> dict[str, MatrixLink]:
    """Map each matrix (or stack of experts) to the parameters, which hold the same values in f32 on the CPU.

    Raises InputError that names the first tensor with rows which no parameter has, or which cannot be told apart.
    """
    wanted = list(tensors)
    links: dict[str, MatrixLink] = {}
    for transposed in (False, True):
        left = [tensor for tensor in wanted if tensor.name not in links]
        if left:
            table = _row_table(parameters, {tensor.shape[-1] for tensor in left}, transposed)
            for tensor in left:
                found = _match(tensor, table)
                if found is not None:
                    links[tensor.name] = MatrixLink(tensor.name, _pieces(found, transposed, parameters))
    if missing := [tensor.name for tensor in wanted if tensor.name not in links]:
        raise InputError(
            f"{missing[0]} cannot be tuned: its rows are not those of one parameter of the transformers model; give it "
            "a type that is not quantized (f16 or bf16) in a recipe, or quantize this model without tuning"
        )
    return links


def link_norms(model: Model, parameters: Mapping[str, torch.Tensor]) -> dict[str, NormLink]:
    """Map each norm's weight to its parameter, by gguf-py's table of names and then by value.

    A norm whose name gguf-py does not know, or whose values are no affine image of the parameter's, is left out: it
    stays as it is.
    """
    names = _gguf_names(model, parameters)
    links = {}
    for tensor in model.tensors:
        if len(tensor.shape) != 1 or not tensor.name.endswith("_norm.weight"):
            continue
        for parameter in names.get(tensor.name, ()):
            stored, own = tensor.load(), parameters[parameter].float().numpy()
            if own.shape == stored.shape and (found := _affine(own, stored)) is not None:
                links[tensor.name] = NormLink(tensor.name, parameter, *found)
                break
    return links


def _as_rows(parameter: torch.Tensor, transposed: bool) -> torch.Tensor:
    swapped = parameter.transpose(-1, -2) if transposed else parameter
    return swapped.reshape(-1, swapped.shape[-1])


def _digests(rows: Rows) -> list[bytes]:
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in np.ascontiguousarray(rows, np.float32)]


def _row_table(
    parameters: Mapping[str, torch.Tensor], lengths: set[int], transposed: bool
) -> dict[bytes, list[tuple[str, int]]]:
    """Where rows of these lengths are: a digest of their values to (parameter, row)."""
    table: dict[bytes, list[tuple[str, int]]] = {}
    for name, parameter in parameters.items():
        if parameter.ndim < 2 or parameter.shape[-2 if transposed else -1] not in lengths:
            continue
        rows = _as_rows(parameter, transposed)
        step = max(1, _SLAB_WEIGHTS // rows.shape[1])
        for first in range(0, len(rows), step):
            for i, digest in enumerate(_digests(rows[first : first + step].float().numpy())):
                table.setdefault(digest, []).append((name, first + i))
    return table


def _match(tensor: LazyTensor, table: Mapping[bytes, list[tuple[str, int]]]) -> list[tuple[str, int]] | None:
    """(parameter, row) for each row of the tensor; None where one has no counterpart, or several.

    Of equal rows, the one that follows the row before is taken, as padded vocabularies end in equal rows.
    """
    found: list[tuple[str, int]] = []
    step = max(1, _SLAB_WEIGHTS // tensor.shape[-1])
    taken: set[tuple[str, int]] = set()
    for first in range(0, tensor.n_rows, step):
        for digest in _digests(tensor.load_rows(first, min(first + step, tensor.n_rows))):
            candidates = table.get(digest, [])
            if len(candidates) > 1:
                following = (found[-1][0], found[-1][1] + 1) if found else None
                candidates = [each for each in candidates if each == following or (not found and each[1] == 0)]
            if len(candidates) != 1 or candidates[0] in taken:
                return None
            found.append(candidates[0])
            taken.add(candidates[0])
    return found


def _pieces(
    found: list[tuple[str, int]], transposed: bool, parameters: Mapping[str, torch.Tensor]
) -> tuple[_Piece, ...]:
    by_parameter: dict[str, list[tuple[int, int]]] = {}
    for target, (parameter, source) in enumerate(found):
        by_parameter.setdefault(parameter, []).append((source, target))
    pieces = []
    for name, pairs in by_parameter.items():
        source, target = (torch.tensor(side) for side in zip(*pairs, strict=True))
        rows = parameters[name].numel() // parameters[name].shape[-1]
        same = len(found) == rows and torch.equal(source, torch.arange(rows)) and torch.equal(target, source)
        pieces.append(_Piece(name, transposed, source, target, same and not transposed))
    return tuple(pieces)


def _gguf_names(model: Model, parameters: Iterable[str]) -> dict[str, list[str]]:
    """The parameters that gguf-py's table maps to each GGUF name."""
    arch = next((arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == model.architecture), None)
    if arch is None:
        return {}
    blocks = [int(t.name.split(".")[1]) for t in model.tensors if t.name.startswith("blk.")]
    table: Any = gguf.get_tensor_name_map(arch, max(blocks, default=0) + 1)
    names: dict[str, list[str]] = {}
    for parameter in parameters:
        name = table.get_name(parameter, try_suffixes=(".weight",))
        if name is not None:
            names.setdefault(name, []).append(parameter)
    return names


def _affine(own: Rows, stored: Rows) -> tuple[float, float] | None:
    """(scale, offset) with stored = scale * own + offset, or None; 1 and an offset of 0 or 1 where that is exact."""
    for offset in (0.0, 1.0):
        if np.array_equal(own + np.float32(offset), stored):
            return 1.0, offset
    if np.ptp(own) == 0:
        return None
    scale, offset = np.polyfit(own.astype(np.float64), stored.astype(np.float64), 1)
    close = np.allclose(scale * own + offset, stored, rtol=1e-5, atol=1e-6 * float(np.abs(stored).max()))
    return (float(scale), float(offset)) if close and scale else None
