"""`gguf-golf inspect`: what a GGUF file says of itself, and the bytes of each type."""

import math
from dataclasses import dataclass
from pathlib import Path

from gguf_golf.container.metadata import KEY_FINGERPRINT, KEY_IMATRIX, KEY_RECIPE, needs, tuned_words
from gguf_golf.errors import InputError
from gguf_golf.formats.protected import RESIDUAL, matrix_of
from gguf_golf.models.gguf_file import split_parts
from gguf_golf.models.hashing import file_sha256
from gguf_golf.runtime.header import GgufHeader


@dataclass(frozen=True)
class TypeShare:
    """The tensors of one type: how many, their weights and their bytes."""

    type: str
    tensors: int
    weights: int
    bytes: int


@dataclass(frozen=True)
class Tensor:
    """One tensor; the contiguous axis is the last of `shape`."""

    name: str
    type: str
    shape: list[int]
    bytes: int


@dataclass(frozen=True)
class Inspected:
    """A GGUF file, all parts of a split one together. None: the file does not say, or it is not a model."""

    files: list[str]
    bytes: int
    sha256: list[str]
    architecture: str | None
    name: str | None
    parameters: int
    bpw: float
    context_length: int | None
    layers: int | None
    vocabulary: int | None
    tokenizer: str | None
    chat_template: str | None
    needs: str | None
    fingerprint: str | None
    imatrix_sha256: str | None
    tuned: str | None
    recipe: str | None
    types: list[TypeShare]
    tensors: list[Tensor]


def inspect(path: Path) -> Inspected:
    """Read the headers of any GGUF file, ours or not. Raises InputError if it is not one, or a part is missing."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a GGUF file")
    parts = split_parts(path)
    tensors: list[Tensor] = []
    for part in parts:
        with GgufHeader(part) as header:
            tensors += [Tensor(t.name, t.type.lower(), list(t.shape), t.bytes) for t in header.tensors()]
    weights = sum(_weights(tensor) for tensor in tensors if matrix_of(tensor.name) is None)
    with GgufHeader(parts[0]) as header:
        architecture = header.text("general.architecture")
        return Inspected(
            files=[part.name for part in parts],
            bytes=sum(part.stat().st_size for part in parts),
            sha256=[file_sha256(part) for part in parts],
            architecture=architecture,
            name=header.text("general.name"),
            parameters=weights,
            bpw=8 * sum(tensor.bytes for tensor in tensors) / weights if weights else 0.0,
            context_length=header.integer(f"{architecture}.context_length"),
            layers=header.integer(f"{architecture}.block_count"),
            vocabulary=header.length("tokenizer.ggml.tokens"),
            tokenizer=header.text("tokenizer.ggml.model"),
            chat_template=header.text("tokenizer.chat_template"),
            needs=needs((tensor.name, tensor.type) for tensor in tensors),
            fingerprint=header.text(KEY_FINGERPRINT),
            imatrix_sha256=header.text(KEY_IMATRIX),
            tuned=tuned_words(header),
            recipe=header.text(KEY_RECIPE),
            types=_by_type(tensors),
            tensors=tensors,
        )


def as_text(found: Inspected, *, every_tensor: bool = False) -> str:
    """The same as a page of text."""
    data = sum(share.bytes for share in found.types)
    lines = [
        f"file: {', '.join(found.files)}: {found.bytes:,} bytes, {found.bytes - data:,} of them header and padding"
    ]
    lines += [f"sha256: {digest}" for digest in found.sha256]
    vocabulary = None if found.vocabulary is None else f"{found.vocabulary:,} tokens ({found.tokenizer})"
    described = {
        "name": found.name,
        "architecture": found.architecture,
        "layers": found.layers,
        "weights": f"{found.parameters:,}, {found.bpw:.3f} bits per weight",
        "context": None if found.context_length is None else f"{found.context_length:,} tokens",
        "vocabulary": vocabulary,
        "chat template": None if found.chat_template is None else f"yes, {len(found.chat_template):,} characters",
        "needs": found.needs,
        "source fingerprint": found.fingerprint,
        "imatrix sha256": found.imatrix_sha256,
        "tuned": found.tuned,
        **_protected(found.tensors),
    }
    lines += [f"{key}: {value}" for key, value in described.items() if value is not None]
    lines += ["", f"{'type':<12}{'tensors':>8}{'weights':>16}{'MB':>11}{'share':>8}"]
    for share in found.types:
        portion = 100 * share.bytes / data
        lines.append(
            f"{share.type:<12}{share.tensors:>8}{share.weights:>16,}{share.bytes / 1e6:>11.2f}{portion:>7.1f}%"
        )
    if every_tensor:
        width = max(len(tensor.name) for tensor in found.tensors)
        lines += ["", f"{'tensor':<{width}}  {'type':<10}{'bytes':>14}  shape"]
        lines += [
            f"{tensor.name:<{width}}  {tensor.type:<10}{tensor.bytes:>14,}  {' x '.join(map(str, tensor.shape))}"
            for tensor in found.tensors
        ]
    missing = "no recipe: this file was not made by `gguf-golf quantize --recipe`"
    return "\n".join([*lines, "", found.recipe.rstrip() if found.recipe else missing])


def _protected(tensors: list[Tensor]) -> dict[str, str]:
    """What is said of each matrix with protected rows, by its name."""
    residuals = [tensor for tensor in tensors if tensor.name.endswith(RESIDUAL)]
    return {t.name.removesuffix(RESIDUAL): f"{t.shape[0]:,} protected rows in {t.type}" for t in residuals}


def _weights(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


def _by_type(tensors: list[Tensor]) -> list[TypeShare]:
    """Shares of all types, the largest first."""
    names = dict.fromkeys(tensor.type for tensor in tensors)
    grouped = {name: [tensor for tensor in tensors if tensor.type == name] for name in names}
    shares = [
        TypeShare(name, len(group), sum(map(_weights, group)), sum(tensor.bytes for tensor in group))
        for name, group in grouped.items()
    ]
    return sorted(shares, key=lambda share: -share.bytes)
