"""The tensors of a file to be written. One weight of a model may become several of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import gguf
import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats import quant_types
from gguf_golf.formats.protected import RESIDUAL, ROWS, Protected
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import Model

NOTHING: Mapping[str, Protected] = {}
"""No rows are protected."""


@dataclass(frozen=True)
class TensorInfo:
    """What a GGUF header says of a tensor; `shape` is in NumPy's order, the contiguous axis last."""

    name: str
    shape: tuple[int, ...]
    type: QuantType

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensor's data. Raises InputError where the type's blocks do not divide the rows."""
        return int(np.prod(self.shape[:-1], dtype=np.int64)) * self.type.row_bytes(self.shape[-1])

    @property
    def padded_bytes(self) -> int:
        """Bytes that the data takes up in the file: the next tensor's starts at a multiple of GGUF's alignment."""
        return int(gguf.GGUFWriter.ggml_pad(self.n_bytes, gguf.GGUF_DEFAULT_ALIGNMENT))


@dataclass(frozen=True)
class Stored(TensorInfo):
    """A tensor with its data: `parts()` yields its bytes in order, u8 arrays that together have `n_bytes`."""

    parts: Callable[[], Iterator[NDArray[np.uint8]]]


def tensor_infos(
    model: Model, chosen: Mapping[str, QuantType], protected: Mapping[str, Protected] = NOTHING
) -> list[TensorInfo]:
    """Every tensor of a model under its own name, in its chosen type, followed by its protected rows."""
    infos = []
    for tensor in model.tensors:
        infos.append(TensorInfo(tensor.name, tensor.shape, chosen[tensor.name]))
        if tensor.name in protected:
            infos += companion_infos(tensor.name, tensor.shape[-1], protected[tensor.name])
    return infos


def companion_infos(name: str, row_length: int, protected: Protected) -> list[TensorInfo]:
    """The two tensors of a matrix's protected rows."""
    return [
        TensorInfo(name + ROWS, (protected.n_rows,), quant_types.get("i32")),
        TensorInfo(name + RESIDUAL, (protected.n_rows, row_length), protected.type),
    ]
