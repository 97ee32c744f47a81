"""AQLM checkpoints in the layout that transformers loads: matrices as sums of codebook vectors, dequantized as read.

Additive quantization (arXiv:2401.06118): a group of weights, `out_group_size` rows by `in_group_size` columns, is the
sum of one vector of each codebook, times the scale of its rows.
"""

from dataclasses import dataclass

import numpy as np

from gguf_golf.errors import InputError
from gguf_golf.formats.quant_types import nearest_tcq
from gguf_golf.models.checkpoint import StoredTensor
from gguf_golf.models.config import Config
from gguf_golf.models.model import FloatArray
from gguf_golf.models.rows import Index, Rows
from gguf_golf.models.weights import Weights

METHOD = "aqlm"
"""quantization_config.quant_method"""

MOST_BITS = 16
"""Of a code: a codebook then has 65536 vectors, the most that is published."""


@dataclass(frozen=True)
class _Layout:
    """quantization_config: one code is an index of `bits` bits into each of `n_books` codebooks."""

    in_group: int
    out_group: int
    n_books: int
    bits: int

    @classmethod
    def of(cls, config: Config) -> "_Layout":
        """Raises InputError for sizes that are not positive integers, or codes that are too long."""
        settings = Config(config.directory, config.get("quantization_config"))
        layout = cls(
            settings.integer("in_group_size", 8),
            settings.integer("out_group_size", 1),
            settings.integer("num_codebooks", 1),
            settings.integer("nbits_per_codebook", 16),
        )
        if layout.bits > MOST_BITS:
            raise InputError(
                f"{config.directory}/config.json: AQLM with nbits_per_codebook {layout.bits}; codes of up to "
                f"{MOST_BITS} bits are read"
            )
        return layout

    @property
    def rate(self) -> float:
        """Bits per weight of the codes."""
        return self.n_books * self.bits / (self.in_group * self.out_group)


def matrix(weights: Weights, name: str, shape: tuple[int, int]) -> Rows:
    """The matrix of a linear layer, of `shape` (rows, cols): NAME.weight, or what NAME.codes of AQLM stand for.

    Raises InputError where tensors are missing, or are not of the shapes that config.json gives them.
    """
    if weights.config.quantization != METHOD or f"{name}.codes" not in weights:
        return weights.take(f"{name}.weight", shape)
    layout = _Layout.of(weights.config)
    n_rows, n_cols = shape
    if n_rows % layout.out_group or n_cols % layout.in_group:
        raise InputError(
            f"{weights.config.directory}: {name} is {list(shape)}, which AQLM's groups of {layout.out_group} by "
            f"{layout.in_group} weights do not divide; quantization_config belongs to another model"
        )
    groups = n_rows // layout.out_group
    book = (layout.n_books, 2**layout.bits, layout.out_group, layout.in_group)
    weights.config.note(
        f"AQLM's sums of codebooks ({layout.n_books}x{layout.bits}, {layout.rate:g} bits per weight) are dequantized; "
        f"the type of the nearest rate is {nearest_tcq(layout.rate).name}"
    )
    return _Sums(
        weights.take_codes(f"{name}.codes", (groups, n_cols // layout.in_group, layout.n_books)),
        weights.take(f"{name}.codebooks", book),
        weights.take(f"{name}.scales", (groups, 1, 1, 1)),
    )


@dataclass(frozen=True)
class _Sums:
    """`codes` (row groups, column groups, books), `codebooks` (books, size, rows, columns), `scales` (row groups, 1, 1,
    1): two's complement integers of 8 or 16 bits of which the codes are the lower bits."""

    codes: StoredTensor
    codebooks: StoredTensor
    scales: StoredTensor

    @property
    def shape(self) -> tuple[int, int]:
        _, _, out_group, in_group = self.codebooks.shape
        return self.codes.shape[0] * out_group, self.codes.shape[1] * in_group

    @property
    def dtype(self) -> str:
        return "F32"

    def read_rows(self, rows: Index) -> FloatArray:
        n_books, size, out_group, in_group = self.codebooks.shape
        books = self.codebooks.read_rows(slice(None)).reshape(n_books, size, out_group, in_group)
        scales = self.scales.read_rows(slice(None)).reshape(-1)
        wanted = np.arange(self.shape[0])[rows]
        group, within = np.divmod(wanted, out_group)
        codes = self.codes.read_integers(group).astype(np.int32) & (size - 1)
        values = np.zeros((*codes.shape[:2], in_group), np.float32)
        for m in range(n_books):
            values += books[m][codes[..., m], within[:, None]]
        return np.asarray(values * scales[group, None, None], np.float32).reshape(len(wanted), -1)
