"""TCQ with error feedback: the cost of a quantization error and how later columns compensate for it.

Both come from the Hessian of a layer's inputs, as in GPTQ (arXiv:2210.17323), with sections of a block's trellis in
place of single columns. With the columns in chain order and H = R R^T, R upper triangular, the columns from a on have
the inverse Hessian U^T U, where U is inv(R) restricted to them. So the cost of an error in columns a..e is given by
R[a:e, a:e] (the squared norms of its rows are the diagonal of what remains of H once all later columns have
compensated), and the correction applied to later columns for an error in section a..b is R[a:b, a:b] U[a:b, b:].
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import tcq
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.runtime.abi import TcqFeedback
from gguf_golf.runtime.library import libggml

SECTION = 64
"""Steps decided at once: a whole short block, a quarter of a long one."""

LOOK_AHEAD = 64
"""Steps that the search sees beyond its section."""

DAMPING = 0.3
"""Added to the diagonal, in units of its mean. Least error on text like the calibration's takes half of it; on other
text, where correlations differ, more is better (docs/planning.md)."""

SLAB_ROWS = 16
"""Rows that a thread takes at a time; the C code reads the propagation matrix once per slab."""


@dataclass(frozen=True)
class Feedback:
    """What the encoder needs from one Hessian, for one block size; columns in chain order, all f32."""

    block_weights: NDArray[np.float32]
    """[k]: the cost of an error once the rest of its block has compensated."""

    section_weights: NDArray[np.float32]
    """[k / SECTION, SECTION + LOOK_AHEAD]: the same within a section and its look-ahead, zero beyond the block."""

    propagation: NDArray[np.float32]
    """[k, k]: row i is what to subtract from later columns per unit error in column i."""

    def arguments(self) -> TcqFeedback:
        """The C struct; it points into these arrays, which have to outlive it."""
        return TcqFeedback(
            self.block_weights.ctypes.data,
            self.section_weights.ctypes.data,
            self.propagation.ctypes.data,
            SECTION,
            LOOK_AHEAD,
        )


def factor_hessian(hessian: NDArray[np.float64], block_size: int) -> Feedback:
    """Factor a Hessian E[x x^T], f64 [k, k], for blocks of `block_size` columns, which must divide k.

    Raises DataError for a matrix that is not a Hessian (NaN, or far from positive definite).
    """
    from scipy.linalg import cholesky, lapack  # 0.2 s, which most workers can do without

    k = len(hessian)
    order = np.concatenate([first + tcq.chain_order(block_size) for first in range(0, k, block_size)])
    damped = hessian[np.ix_(order, order)]
    mean = float(np.mean(np.diag(damped)))
    damped[np.diag_indices(k)] += DAMPING * mean if mean > 0 else 1.0
    try:
        upper = cholesky(damped[::-1, ::-1], lower=True, overwrite_a=True)[::-1, ::-1]
    except (np.linalg.LinAlgError, ValueError) as error:
        raise DataError(f"a Hessian cannot be factored ({error}); collect it again") from error
    inverse, _ = lapack.dtrtri(np.asfortranarray(upper), lower=0)

    block_weights = np.empty(k, np.float32)
    section_weights = np.zeros((k // SECTION, SECTION + LOOK_AHEAD), np.float32)
    propagation = np.zeros((k, k), np.float32)
    for first in range(0, k, block_size):
        last = first + block_size
        block_weights[first:last] = np.square(upper[first:last, first:last]).sum(1)
        for a in range(first, last, SECTION):
            b, seen = a + SECTION, min(a + SECTION + LOOK_AHEAD, last)
            section_weights[a // SECTION, : seen - a] = np.square(upper[a:seen, a:seen]).sum(1)
            propagation[a:b, b:] = upper[a:b, a:b] @ inverse[a:b, b:]
    return Feedback(block_weights, section_weights, propagation)


def encode(quant_type: QuantType, rows: NDArray[np.float32], feedback: Feedback, threads: int = 1) -> NDArray[np.uint8]:
    """Rows f32 [n, k] to a TCQ type on CPU threads: bytes u8 [n, row_bytes], the same for any number of threads.

    Raises InputError as `check` does.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    n, k = rows.shape
    check(quant_type, k, feedback)
    encoder, arguments = libggml().quantize_tcq_feedback, feedback.arguments()
    out = np.empty((n, quant_type.row_bytes(k)), np.uint8)

    def slab(first: int) -> None:
        count = min(SLAB_ROWS, n - first)
        source, target = rows[first:].ctypes.data, out[first:].ctypes.data
        encoder(quant_type.id, source, target, count, k, ctypes.addressof(arguments))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(slab, range(0, n, SLAB_ROWS)):
            pass
    return out


def check(quant_type: QuantType, k: int, feedback: Feedback) -> None:
    """Raise InputError if the type is not a TCQ type, or the feedback is not for rows of k columns."""
    if not quant_type.tcq:
        raise InputError(f"{quant_type.name} cannot be encoded with error feedback: only TCQ types can")
    if len(feedback.block_weights) != k:
        raise InputError(f"the Hessian has {len(feedback.block_weights)} columns, and the rows have {k}")
