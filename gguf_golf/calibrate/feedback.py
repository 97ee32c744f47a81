"""TCQ with error feedback: what an error costs, and how later columns answer it, from the Hessian of a layer's inputs.

GPTQ (arXiv:2210.17323) with sections of a block's trellis in place of single columns. With the columns in chain order
and H = R R^T, R upper triangular, the columns from a on have the inverse Hessian U^T U, U = inv(R) cut to them. So:
an error in columns a..e costs what R[a:e, a:e] says (its rows' squared norms are the diagonal of what is left of H when
all later columns answer), and later columns answer an error of the section a..b with R[a:b, a:b] U[a:b, b:].
"""

import ctypes
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, lapack

from gguf_golf.calibrate.hessian import Hessians
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import tcq
from gguf_golf.formats.types import TCQ, TCQ_FORMATS, QuantType
from gguf_golf.runtime import gpu
from gguf_golf.runtime.library import libggml

SECTION = 64
"""Steps decided at once: a whole short block, a quarter of a long one."""

LOOK_AHEAD = 64
"""Steps that the search sees beyond its section."""

DAMPING = 0.15
"""Added to the diagonal, in units of its mean: calibration text is short."""


SLAB_ROWS = 16
"""Rows that a thread takes at a time; the C code goes through the propagation matrix once for so many."""


class _Feedback(ctypes.Structure):
    """`tcq_feedback` of ggml-tcq.h."""

    _fields_ = (
        ("block_weights", ctypes.c_void_p),
        ("section_weights", ctypes.c_void_p),
        ("propagation", ctypes.c_void_p),
        ("section", ctypes.c_int),
        ("look_ahead", ctypes.c_int),
    )


@dataclass(frozen=True)
class Feedback:
    """What the encoder needs of one Hessian, for one block size; columns in chain order, all f32."""

    block_weights: NDArray[np.float32]
    """[k]: what an error costs if later columns of its block may answer."""

    section_weights: NDArray[np.float32]
    """[k / SECTION, SECTION + LOOK_AHEAD]: the same within a section and its look-ahead, zero beyond the block."""

    propagation: NDArray[np.float32]
    """[k, k]: row i says what to subtract from later columns for an error of 1 in column i."""


def prepare(hessian: NDArray[np.float64], block_size: int) -> Feedback:
    """Factor a Hessian E[x x^T] (k, k) for blocks of `block_size` columns, which must divide k.

    Raises DataError for a Hessian that is no such thing (NaN, or far from positive definite).
    """
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


class Prepared:
    """The Hessians of a file, factored when they are asked for; the last two are kept, as layers share inputs."""

    def __init__(self, hessians: Hessians) -> None:
        self.hessians = hessians
        self._kept: dict[tuple[str, int, int], Feedback] = {}

    def get(self, weight: str, mat: int, n_mat: int, quant_type: QuantType, k: int) -> Feedback | None:
        """For rows of `k` of matrix `mat` (of `n_mat`) of a weight; None where error feedback is not possible:
        another family of types, no Hessian of this weight, or an expert that calibration never reached.

        Raises InputError for Hessians of another model.
        """
        if quant_type.name not in TCQ_FORMATS or weight not in self.hessians:
            return None
        if self.hessians.shape(weight) != (n_mat, k):
            raise InputError(
                f"{self.hessians.path} has {self.hessians.shape(weight)} for {weight}, the model needs {(n_mat, k)}: "
                "it was collected on another model"
            )
        key = (self.hessians.input_of(weight), mat, quant_type.block_size)
        if key not in self._kept:
            hessian = self.hessians.get(weight, mat)
            if hessian is None:
                return None
            self._kept = dict([*self._kept.items()][-1:])
            self._kept[key] = prepare(hessian, quant_type.block_size)
        return self._kept[key]


def notes(hessians: Hessians, chosen: Mapping[str, QuantType]) -> list[str]:
    """What a user should be told: which TCQ matrices are encoded without error feedback, `chosen` being all types."""
    weights = [name for name, quant_type in chosen.items() if quant_type.name in TCQ_FORMATS]
    found = []
    if missing := [name for name in weights if name not in hessians]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        found.append(f"no error feedback for {missing[0]}{more}: not in {hessians.path}")
    reached = [hessians.reached(name) for name in weights if name in hessians]
    if idle := sum(int((~experts).sum()) for experts in reached):
        total = sum(len(experts) for experts in reached if len(experts) > 1)
        found.append(
            f"no error feedback for {idle} of {total} matrices of experts: the calibration text never chose them"
        )
    return found


def quantize(
    quant_type: QuantType, rows: NDArray[np.float32], feedback: Feedback, threads: int = 1, on_gpu: bool = False
) -> NDArray[np.uint8]:
    """Rows f32 (n, k) to a TCQ type with error feedback; returns bytes (n, row_bytes), the same however it is done.

    Raises InputError if the type is no TCQ type, or the feedback was prepared for other rows, and with `on_gpu`
    BuildError where there is no GPU or no runtime for it.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    n, k = rows.shape
    if quant_type.name not in TCQ_FORMATS:
        raise InputError(f"{quant_type.name} cannot be encoded with error feedback: only TCQ types can")
    if len(feedback.block_weights) != k:
        raise InputError(f"the Hessian has {len(feedback.block_weights)} columns, and the rows have {k}")
    arguments = _Feedback(
        feedback.block_weights.ctypes.data,
        feedback.section_weights.ctypes.data,
        feedback.propagation.ctypes.data,
        SECTION,
        LOOK_AHEAD,
    )
    if on_gpu:
        return gpu.quantize_with_feedback(quant_type.id, rows, arguments)
    out = np.empty((n, quant_type.row_bytes(k)), np.uint8)

    def slab(first: int) -> None:
        count = min(SLAB_ROWS, n - first)
        source, target = rows[first:].ctypes.data, out[first:].ctypes.data
        _encoder()(quant_type.id, source, target, count, k, ctypes.byref(arguments))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(slab, range(0, n, SLAB_ROWS)):
            pass
    return out


def check_gpu() -> None:
    """Encode a little with feedback on the GPU and on the CPU. Raises BuildError as `gpu.check` does."""
    rng = np.random.default_rng(0)
    rows = rng.standard_t(3, (4, 512)).astype(np.float32)
    x = rng.standard_normal((600, 512)) @ rng.standard_normal((512, 512))
    for name in ("tcq3", "tcq3_64"):
        answer = prepare(x.T @ x / len(x), TCQ[name].block_size)
        on_gpu = quantize(TCQ[name], rows, answer, on_gpu=True)
        gpu.require_equal(on_gpu, quantize(TCQ[name], rows, answer))


@cache
def _encoder() -> "ctypes._NamedFuncPointer":
    function = libggml().quantize_tcq_feedback
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int,
        *(ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64),
        ctypes.POINTER(_Feedback),
    ]
    return function
