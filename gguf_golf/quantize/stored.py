"""A model's weights as the tensors of a file: read, encoded and handed on a slab of rows at a time. Residuals of
protected rows are what is missing in these rows once they come back from their type."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.container.tensors import NOTHING, Stored, companion_infos
from gguf_golf.encode import Encoder, Guide, round_trip
from gguf_golf.encode.magnitude import HARMLESS, OutOfRangeError, encode_in_range, largest, within
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.protected import Protected
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.quantize import lattice
from gguf_golf.quantize.assignment import check_imatrix

SLAB_WEIGHTS = 1 << 23
"""Weights read and encoded at a time: bounds memory, and is long enough to keep every thread busy."""


class OutOfRange(InputError):
    """A tensor whose weights its type cannot hold."""

    def __init__(self, name: str, quant_type: QuantType, peak: float) -> None:
        super().__init__(
            f"{name} cannot be stored as {quant_type.name}: its weights reach {peak:.3g}, which is outside that "
            "type's range; give it another, such as bf16"
        )
        self.name, self.quant_type, self.peak = name, quant_type, peak

    def __reduce__(self) -> tuple[Any, ...]:
        """From a worker's process to this one."""
        return OutOfRange, (self.name, self.quant_type, self.peak)


def stored_tensors(
    model: Model,
    chosen: Mapping[str, QuantType],
    guide: Guide,
    encoder: Encoder,
    kept: Collection[str] = (),
    protected: Mapping[str, Protected] = NOTHING,
) -> list[Stored]:
    """Every weight as one tensor of its name, in its chosen type, followed by its protected rows; those of `kept` lie
    on that type's lattice.

    Raises InputError for types that need an imatrix where the guide has nothing about their tensors, and for a guide
    that was collected on another model.
    """
    check_imatrix(chosen, guide.imatrix)
    for tensor in model.tensors:
        guide.check(tensor.name, tensor.shape[-1], tensor.n_experts)
    tensors = []
    for tensor in model.tensors:
        quant_type = chosen[tensor.name]
        exact = tensor.name in kept
        tensors.append(stored_exactly(tensor, quant_type) if exact else stored(tensor, quant_type, guide, encoder))
        if tensor.name in protected:
            tensors += companions(tensor, quant_type, protected[tensor.name], guide, encoder)
    return tensors


def stored(tensor: LazyTensor, quant_type: QuantType, guide: Guide, encoder: Encoder) -> Stored:
    """A weight as one tensor. Reading its parts raises InputError as `Guide.of` and `Encoder.encode` do, OutOfRange for
    weights that the type cannot hold, and DataError for weights that are not finite."""

    def parts() -> Iterator[NDArray[np.uint8]]:
        return encoded(tensor, slabs(tensor), quant_type, guide, encoder)

    return Stored(tensor.name, tensor.shape, quant_type, parts)


def companions(
    tensor: LazyTensor, quant_type: QuantType, protected: Protected, guide: Guide, encoder: Encoder
) -> list[Stored]:
    """The protected rows of a matrix that is stored in `quant_type`: their numbers and their residual.

    Raises InputError as `Guide.frequent_rows` does; reading the residual raises as reading `stored` does.
    """
    k = tensor.shape[-1]
    rows = guide.frequent_rows(tensor.name, tensor.n_rows, protected.n_rows)

    def numbers() -> Iterator[NDArray[np.uint8]]:
        yield rows.astype("<i4").view(np.uint8)

    def residual() -> Iterator[NDArray[np.uint8]]:
        guidance = guide.of(tensor.name, quant_type, k)
        plain = guide.without_hessians().of(tensor.name, protected.type, k)
        for some in np.array_split(rows, -(-rows.size * k // SLAB_WEIGHTS)):
            values = np.concatenate([tensor.load_rows(int(row), int(row) + 1) for row in some])
            missing = values - round_trip(encoder, values, quant_type, guidance)
            yield encoder.encode(missing, protected.type, plain)

    parts = (numbers, residual)
    infos = companion_infos(tensor.name, k, protected)
    return [Stored(i.name, i.shape, i.type, part) for i, part in zip(infos, parts, strict=True)]


def slabs(tensor: LazyTensor) -> list[tuple[int, int]]:
    """The rows [first, last) that are encoded at a time: of one expert each."""
    rows_each, step = tensor.n_rows // tensor.n_experts, max(1, SLAB_WEIGHTS // tensor.shape[-1])
    ends = range(rows_each, tensor.n_rows + 1, rows_each)
    return [(first, min(first + step, end)) for end in ends for first in range(end - rows_each, end, step)]


def encoded(
    tensor: LazyTensor, wanted: Iterable[tuple[int, int]], quant_type: QuantType, guide: Guide, encoder: Encoder
) -> Iterator[NDArray[np.uint8]]:
    """The bytes of some slabs of a weight. Raises as `stored` says."""
    rows_each = tensor.n_rows // tensor.n_experts
    for first, last in wanted:
        guidance = guide.of(tensor.name, quant_type, tensor.shape[-1], first // rows_each, tensor.n_experts)
        try:
            yield encode_in_range(encoder, tensor.load_rows(first, last), quant_type, guidance)
        except OutOfRangeError as error:
            raise OutOfRange(tensor.name, quant_type, error.peak) from error


def stored_exactly(tensor: LazyTensor, quant_type: QuantType) -> Stored:
    """A weight that lies on the type's lattice. Reading its parts raises DataError if it does not (any more)."""

    def parts() -> Iterator[NDArray[np.uint8]]:
        step = max(1, SLAB_WEIGHTS // tensor.shape[-1])
        for first in range(0, tensor.n_rows, step):
            rows = tensor.load_rows(first, min(first + step, tensor.n_rows))
            data = lattice.encode(rows, quant_type, tensor.source_type)
            if data is None:
                raise DataError(f"{tensor.name} changed while it was being read: run the command again")
            yield data

    return Stored(tensor.name, tensor.shape, quant_type, parts)


def widened(
    model: Model, chosen: Mapping[str, QuantType], guide: Guide, encoder: Encoder, kept: Collection[str] = ()
) -> tuple[dict[str, QuantType], list[str]]:
    """The types with those that cannot hold their weights replaced by the source's own, and a note for each.

    It reads the whole model, and encodes the tensors whose weights are of unusual size.
    """
    new_types, notes = dict(chosen), []
    for tensor in model.tensors:
        try:
            if tensor.name not in kept and not _is_harmless(tensor):
                for _ in stored(tensor, chosen[tensor.name], guide, encoder).parts():
                    pass
        except OutOfRange as error:
            exact = tensor.source_type.lower()
            new_types[tensor.name] = quant_types.get(exact if exact in ("f16", "bf16") else "f32")
            notes.append(
                f"{tensor.name} is kept as {new_types[tensor.name].name}: its weights reach {error.peak:.3g}, which "
                f"{error.quant_type.name} cannot hold"
            )
    return new_types, notes


def _is_harmless(tensor: LazyTensor) -> bool:
    step = max(1, SLAB_WEIGHTS // tensor.shape[-1])
    for first in range(0, tensor.n_rows, step):
        if not within(largest(tensor.load_rows(first, min(first + step, tensor.n_rows))), HARMLESS):
            return False
    return True
