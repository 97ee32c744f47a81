"""Protected rows: two tensors beside a matrix give some of its rows back what quantization has taken from them.

`NAME.rows`, i32 [k], are the numbers of these rows, ascending; `NAME.residual`, [k, n_in] in any type, is what is added
to each. The patched llama.cpp adds them to products and lookups (patches/src/src/llama-protected-rows.cpp).
"""

from dataclasses import dataclass

from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType

ROWS, RESIDUAL = ".rows", ".residual"
"""What the names of the two tensors add to that of the matrix."""

DEFAULT_RESIDUAL = "tcq2"
"""A residual is noise, of which 2 bits remove nine tenths of the energy: more rows are worth more than more bits."""

NOT_APPLIED = frozenset(
    {
        "bailingmoe3",
        "deepseek2",
        "deepseek2-ocr",
        "deepseek32",
        "deepseek4",
        "dflash",
        "dots3note",
        "eagle3",
        "glm-dsa",
        "glm5-next",
        "graniteswitch",
        "hy_v4",
        "kimi-k3",
        "kimi-linear",
        "mistral4",
    }
)
"""Architectures whose graph in llama.cpp multiplies by the head, or looks up the embedding, past the functions that add
residuals. llama.cpp refuses their files."""


@dataclass(frozen=True)
class Protected:
    """How many rows of a matrix are protected, and the type of their residual."""

    n_rows: int
    type: QuantType

    def __str__(self) -> str:
        return f"{self.n_rows:,} rows in {self.type.name}"


def protected(n_rows: int, type_name: str, row_length: int) -> Protected:
    """Protected rows of this length, in the type or its fallback. Raises InputError for a name that is no type of
    weights."""
    residual, _ = quant_types.type_for_row(type_name, row_length)
    if not (residual.holds_weights and residual.is_self_contained):
        raise InputError(f"the residual of protected rows cannot be stored as {residual.name}")
    return Protected(n_rows, residual)


def matrix_of(name: str) -> str | None:
    """The matrix that a tensor belongs to, None for one that stands alone."""
    return next((name.removesuffix(suffix) for suffix in (ROWS, RESIDUAL) if name.endswith(suffix)), None)
