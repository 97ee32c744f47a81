"""What every other room sees of a model: GGUF metadata, and tensors that are read one at a time.

Nothing here knows where a model comes from; checkpoint.py and gguf_file.py make these objects.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from gguf import GGUFValueType, GGUFWriter

from gguf_golf.errors import DataError, InputError

FloatArray = npt.NDArray[np.float32]


class MetadataField(NamedTuple):
    """One GGUF key-value pair. `sub_type` is the element type of an array, None for all else."""

    key: str
    value: object
    type: GGUFValueType
    sub_type: GGUFValueType | None = None


def fields_of(writer: GGUFWriter) -> list[MetadataField]:
    """What gguf-py's writer has collected: its add_* methods are the one list of keys and their types."""
    return [
        MetadataField(key, v.value, v.type, GGUFValueType.get_type(v.value[0]) if isinstance(v.value, list) else None)
        for key, v in writer.kv_data[0].items()
    ]


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that stays on disk until it is asked for.

    `name` is the GGUF name, `shape` is in NumPy's order (rows, cols) with the contiguous axis last, `source_type` is
    the ggml type of the source ("BF16", "F16", "F32", or a quantized type that was explicitly allowed).
    A row is one run along the last axis; leading axes are flattened, so a vector has one row and a stack of experts
    (n_expert, rows, cols) has n_expert * rows.
    """

    name: str
    shape: tuple[int, ...]
    source_type: str
    read_rows: Callable[[int, int], FloatArray]  # (first, last) -> f32 (last - first, cols), fresh memory

    @property
    def n_rows(self) -> int:
        """The product of all axes but the last; 1 for a vector."""
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @property
    def n_experts(self) -> int:
        """How many matrices are stacked in this tensor; 1 for a vector or a matrix."""
        return int(np.prod(self.shape[:-2], dtype=np.int64))

    def load(self) -> FloatArray:
        """Read the whole tensor: f32 of shape `shape`, in fresh memory. Raises DataError on NaN or Inf."""
        return self.load_rows(0, self.n_rows).reshape(self.shape)

    def load_rows(self, first: int, last: int) -> FloatArray:
        """Read rows first..last-1: f32 (last - first, cols), in fresh memory. Raises DataError on NaN or Inf."""
        if not 0 <= first <= last <= self.n_rows:
            raise IndexError(f"rows {first}:{last} of {self.name}, which has {self.n_rows}")
        values = self.read_rows(first, last)
        finite = np.isfinite(values)
        if not finite.all():
            bad = int(finite.size - np.count_nonzero(finite))
            raise DataError(
                f"{self.name}: {bad} of {finite.size} weights are NaN or Inf; the source file is damaged or the "
                "training diverged: download it again, or use another checkpoint"
            )
        return values


@dataclass(frozen=True)
class Model:
    """A model ready to be written as GGUF: `metadata` in file order, starting with general.architecture.

    `notes` is what a user should know about how it was read.
    """

    architecture: str
    metadata: list[MetadataField]
    tensors: list[LazyTensor]
    notes: list[str] = field(default_factory=list)

    def tensor(self, name: str) -> LazyTensor:
        """The tensor with this GGUF name. Raises InputError if there is none."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise InputError(f"the model has no tensor named {name}")
