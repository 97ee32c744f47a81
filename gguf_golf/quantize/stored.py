"""A model's weights as the tensors of a file: read, encoded and handed on a slab of rows at a time."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from gguf_golf.container.tensors import Stored
from gguf_golf.encode import Encoder, Guide
from gguf_golf.formats.types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.quantize.assignment import check_imatrix

SLAB_WEIGHTS = 1 << 23
"""Weights read and encoded at a time: bounds memory, and is long enough to keep every thread busy."""


def stored_tensors(model: Model, chosen: Mapping[str, QuantType], guide: Guide, encoder: Encoder) -> list[Stored]:
    """Every weight as one tensor of its name, in its chosen type.

    Raises InputError for types that need an imatrix where the guide has nothing about their tensors.
    """
    check_imatrix(chosen, guide.imatrix)
    return [stored(tensor, chosen[tensor.name], guide, encoder) for tensor in model.tensors]


def stored(tensor: LazyTensor, quant_type: QuantType, guide: Guide, encoder: Encoder) -> Stored:
    """A weight as one tensor; reading its parts raises InputError as `Guide.of` and `Encoder.encode` do, and DataError
    for weights that are not finite."""

    def parts() -> Iterator[NDArray[np.uint8]]:
        k, n_experts = tensor.shape[-1], tensor.n_experts
        rows_each, step = tensor.n_rows // n_experts, max(1, SLAB_WEIGHTS // k)
        for expert in range(n_experts):
            guidance = guide.of(tensor.name, quant_type, k, expert, n_experts)
            end = (expert + 1) * rows_each
            for first in range(expert * rows_each, end, step):
                yield encoder.encode(tensor.load_rows(first, min(first + step, end)), quant_type, guidance)

    return Stored(tensor.name, tensor.shape, quant_type, parts)
