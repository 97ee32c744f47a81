"""Weights in a rotated basis: random signs, then a Hadamard matrix on blocks of 64, 128 or 256 input channels.

The bytes are those of the same type unrotated (signs come from a seed). What slots are worth in the rotated basis, and
a scale for each row instead of one for each block, is bounded: `bytes_without_slots` and `bytes_by_row` are what the
same damage would cost if slots, or scales as well, were free to drop.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gguf_golf.formats import quant_types

from .bench import Bench, Cell, Weights
from .storage import Stored, plain
from .subject import Matrix

EXPERIMENT = "rotation"

SCALE_BITS = {"block": 8, "row": 16}


def cells() -> Iterator[Cell]:
    """Blocks of 256 at every rate, then 64 and 128 at 2 bits, then without feedback."""
    for rate, block, with_feedback, priority in (
        (2, 256, True, 0),
        (3, 256, True, 0),
        (1, 256, True, 0),
        (4, 256, True, 0),
        (2, 64, True, 1),
        (2, 128, True, 1),
        (2, 256, False, 2),
        (1, 64, True, 2),
        (3, 64, True, 2),
        (4, 64, True, 2),
    ):
        key = {"base": "uniform", "rate": rate, "fed": with_feedback, "block": block}
        yield Cell(EXPERIMENT, key, _rotated, (rate, block, with_feedback), priority)


def _rotated(bench: Bench, rate: int, block: int, with_feedback: bool) -> Weights:
    stored = bench.storage.each(lambda m: _stored(bench, m, rate, block, with_feedback), bench.linear)
    whole = bench.assembled({**bench.uniform(rate, with_feedback), **stored})
    slots = {kind: sum(_bits_saved(m, rate, kind) for m in bench.linear) // 8 for kind in SCALE_BITS}
    whole.facts = {
        "bytes_without_slots": whole.n_bytes - slots["block"],
        "bytes_by_row": whole.n_bytes - slots["row"],
    }
    return whole


def _bits_saved(matrix: Matrix, rate: int, scale: str) -> int:
    n, k = matrix.original.shape
    quant_type, _ = quant_types.type_for_row(f"tcq{rate}", k)
    overhead: int = 8 * quant_type.type_size - rate * quant_type.block_size  # slots and scale of a block
    blocks: int = n * k // quant_type.block_size
    return blocks * overhead - (n if scale == "row" else blocks) * SCALE_BITS[scale]


def _stored(bench: Bench, matrix: Matrix, rate: int, block: int, with_feedback: bool) -> Stored:
    basis = Basis(matrix.original, block, bench.seed)
    quant_type, _ = quant_types.type_for_row(f"tcq{rate}", matrix.original.shape[1])
    hessian = basis.hessian(matrix.hessian.double())
    what = (EXPERIMENT, block)
    guidance = bench.storage.fed(matrix, quant_type, what, lambda: hessian) if with_feedback else plain(hessian)
    coded = bench.storage.encode(basis.turned(matrix.original), quant_type, guidance)
    return Stored(basis.back(coded.weights), coded.n_bytes)


class Basis:
    """Random signs and a Hadamard matrix for each `block` input channels, or the largest half of it that divides the
    channels of `weights` [n, k]; a block of 1 is the basis that there is."""

    def __init__(self, weights: Tensor, block: int, seed: int) -> None:
        k = weights.shape[1]
        while k % block:
            block //= 2
        self._block, self._hadamard = block, _hadamard(block).to(weights)
        signs = torch.randint(0, 2, (k,), generator=torch.Generator().manual_seed(seed)).mul(2).sub(1)
        self._signs = signs.to(weights) if block > 1 else torch.ones_like(signs).to(weights)

    def turned(self, x: Tensor) -> Tensor:
        """Rows [n, k] in this basis."""
        return ((x * self._signs.to(x)).unflatten(1, (-1, self._block)) @ self._hadamard.to(x)).flatten(1)

    def back(self, x: Tensor) -> Tensor:
        """The inverse."""
        return (x.unflatten(1, (-1, self._block)) @ self._hadamard.to(x).T).flatten(1) * self._signs.to(x)

    def hessian(self, hessian: Tensor) -> Tensor:
        """[k, k] of inputs in this basis."""
        return self.turned(self.turned(hessian).T).T


def _hadamard(n: int) -> Tensor:
    """Sylvester's, orthonormal, f64 [n, n]."""
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h / math.sqrt(n)
