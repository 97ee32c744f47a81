"""What a matrix becomes when it is stored: weights as they come back, and every byte that they take.

TCQ by the encoder that writes files; companions (what lies beside a weight) by plain grids of 4 and 8 bits.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from gguf_golf.encode import Encoder, Guidance
from gguf_golf.encode.feedback import Feedback, factor_hessian
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.tune.decode import decode

from .subject import VOCABULARY, Matrix

COMPANION_BYTES = 96
"""What one more tensor takes in a GGUF: its name, shape, type and offset, and half of its alignment."""

INDEX_BYTES = 2
"""One row or column index."""

EPSILON = 1e-3
"""The weight of columns whose errors do not matter, in units of the mean."""

T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """Weights f32 [n, k] as they come back, and the bytes that they take."""

    weights: Tensor
    n_bytes: int


@dataclass
class Storage:
    """Stores matrices, and keeps what has been stored in one type."""

    encoder: Encoder
    device: str
    workers: int = 4
    _plain: dict[tuple[str, str, bool], Stored] = field(default_factory=dict)
    _factored: dict[Hashable, Feedback] = field(default_factory=dict)
    _locks: dict[Hashable, Lock] = field(default_factory=dict)

    def each(self, work: Callable[[Matrix], T], matrices: Iterable[Matrix]) -> dict[str, T]:
        """work(matrix) by name, several at a time: factoring runs on one core and encoding on one device."""
        matrices = list(matrices)
        with ThreadPoolExecutor(self.workers) as pool:
            return {m.name: done for m, done in zip(matrices, pool.map(work, matrices), strict=True)}

    def at(self, matrix: Matrix, type_name: str, fed: bool) -> Stored:
        """The matrix in a type, TCQ types with error feedback if `fed` (the vocabulary never); kept."""
        quant_type, _ = quant_types.type_for_row(type_name, matrix.original.shape[1])
        fed = fed and quant_type.tcq is not None and matrix.name != VOCABULARY
        key = (matrix.name, quant_type.name, fed)
        if key not in self._plain:
            guidance = self.fed(matrix, quant_type, "", lambda: matrix.hessian) if fed else plain(matrix.hessian)
            self._plain[key] = self.encode(matrix.original, quant_type, guidance)
        return self._plain[key]

    def kept(self) -> list[Stored]:
        """All that `at` has stored."""
        return list(self._plain.values())

    def encode(self, rows: Tensor, quant_type: QuantType, guidance: Guidance) -> Stored:
        """Rows f32 [n, k] through the encoder and back."""
        data = torch.from_numpy(self.encoder.encode(rows.cpu().numpy(), quant_type, guidance))
        n, k = rows.shape
        weights = decode(data, quant_type, (n, k), self.device, self.encoder.threads)
        return Stored(weights, data.numel())

    def fed(self, matrix: Matrix, quant_type: QuantType, what: Hashable, make: Callable[[], Tensor]) -> Guidance:
        """Error feedback by the Hessian [k, k] that make() gives; `what` names how it is made from that of the matrix's
        inputs. Factored once for all matrices with these inputs and all types with such blocks."""
        key = (id(matrix.source), quant_type.block_size, what)
        with self._locks.setdefault(key, Lock()):
            if key not in self._factored:
                self._factored[key] = factor_hessian(make().double().cpu().numpy(), quant_type.block_size)
        return Guidance(feedback=self._factored[key])


def plain(hessian: Tensor) -> Guidance:
    """Guidance by the diagonal of a Hessian alone; uniform where it is zero."""
    importance = hessian.diagonal().clamp(min=0).float()
    return Guidance(importance.cpu().numpy() if float(importance.sum()) > 0 else None)


def grid(x: Tensor, bits: int, dim: int = -1) -> Tensor:
    """x on a symmetric grid of 4 or 8 bits with an f16 scale for each 32 values along `dim` (or fewer at its end): 4.5
    or 8.5 bits a value, as Q4_0 and Q8_0."""
    moved = x.movedim(dim, -1)
    padded = torch.nn.functional.pad(moved, (0, -moved.shape[-1] % 32)).unflatten(-1, (-1, 32))
    scale = (padded.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).half().float().clamp(min=2**-24)
    rounded = (torch.round(padded / scale) * scale).flatten(-2)[..., : moved.shape[-1]]
    return rounded.movedim(-1, dim)


def grid_bytes(n_values: int, bits: int) -> int:
    """Bytes of that many values, whole blocks aside."""
    return math.ceil(n_values * (bits + 0.5) / 8)


def sparse_index_bytes(n_weights: int, n_chosen: int) -> int:
    """Bytes to say which weights of a matrix are chosen: the entropy of a random choice, which no real index beats by
    much; a bound in favour of storing single weights."""
    if n_chosen == 0:
        return 0
    bits = math.lgamma(n_weights + 1) - math.lgamma(n_chosen + 1) - math.lgamma(n_weights - n_chosen + 1)
    return math.ceil(bits / math.log(2) / 8)
