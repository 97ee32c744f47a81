"""Scores of single tokens from logits: -log p, KL divergence to the base, agreement of the top tokens.

Every number follows llama-perplexity (tools/perplexity/perplexity.cpp) to rounding: float32 terms, float64 sums. Work
goes in blocks of rows that fit the L2 cache, on threads: numpy lets go of the interpreter lock.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import DataError
from gguf_golf.evaluate.logits_file import LEVELS, RANGE_NATS, scale_and_minimum

# one scored token; the file that keeps finished chunks holds these records
TOKEN_SCORE = np.dtype(
    [
        ("nll", "<f4"),  # -log p(target), nats
        ("nll_base", "<f4"),  # the same under the base
        ("kld", "<f4"),  # KL(base || model), nats
        ("p_diff", "<f4"),  # p(target) - p_base(target)
        ("top1", "u1"),  # the same most likely token
        ("top5", "u1"),  # the same five most likely tokens, in any order
    ]
)
BLOCK_VALUES = 1 << 17  # float32 values in a block: 512 KiB for each of the few arrays alive at a time
TOP = 5
GROUPS = 64


class Scorer:
    """Scores chunks on `threads` threads. Use as a context manager."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_exit: object) -> None:
        self._pool.shutdown()

    def encode(
        self, logits: NDArray[np.float32], targets: NDArray[np.int32]
    ) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Logits f32 [n, n_vocab] as rows uint16 [n, n_row] of a `LogitsFile`, and the exact -log p(target) f32 [n].

        The rows alone would not do: they hold no log-probability more than 16 nats below the largest.
        """
        n, n_vocab = logits.shape
        rows = np.zeros((n, 2 * ((n_vocab + 1) // 2) + 4), np.uint16)
        nll = np.empty(n, np.float32)
        self._each_block(n, n_vocab, lambda part: _encode(logits[part], targets[part], rows[part], nll[part]))
        return rows, nll

    def compare(
        self, logits: NDArray[np.float32], targets: NDArray[np.int32], base_rows: NDArray[np.uint16]
    ) -> NDArray[np.void]:
        """TOKEN_SCORE [n] of logits f32 [n, n_vocab] against the base's rows uint16 [n, n_row]."""
        n, n_vocab = logits.shape
        scores = np.zeros(n, TOKEN_SCORE)
        self._each_block(n, n_vocab, lambda part: _compare(logits[part], targets[part], base_rows[part], scores[part]))
        return scores

    def _each_block(self, n: int, n_vocab: int, work: Callable[[slice], None]) -> None:
        size = max(1, BLOCK_VALUES // n_vocab)
        parts = [slice(start, start + size) for start in range(0, n, size)]
        for _done in self._pool.map(work, parts):
            pass


def log_sum_exp(logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(largest logit, log of the sum of exp(logit - largest)), each f32 [n].

    Raises DataError unless all are finite, and where one row is constant: weights of zeros or NaN compute such logits,
    and the perplexity would be the size of the vocabulary.
    """
    largest = logits.max(1)
    with np.errstate(invalid="ignore"):
        total = np.exp(logits - largest[:, None]).sum(1, dtype=np.float64)
        log_sum = np.log(total).astype(np.float32)
    if not np.isfinite(largest + log_sum).all():
        raise DataError("the model computed logits that are NaN or Inf: its weights are damaged")
    if logits.shape[1] > 1 and (total == logits.shape[1]).any():
        raise DataError("the model computed the same logit for every token: its weights are damaged")
    return largest, log_sum


def _encode(
    logits: NDArray[np.float32],
    targets: NDArray[np.int32],
    rows: NDArray[np.uint16],
    nll: NDArray[np.float32],
) -> None:
    largest, log_sum = log_sum_exp(logits)
    nll[:] = largest + log_sum - logits[np.arange(len(logits)), targets]
    smallest = np.maximum(logits.min(1), largest - RANGE_NATS)
    scale = (largest - smallest) / np.float32(LEVELS)
    rows[:, :4] = np.stack([scale, smallest - largest - log_sum], 1).astype(np.float32).view(np.uint16)
    with np.errstate(divide="ignore"):
        inverse = np.where(scale > 0, 1 / scale, 0).astype(np.float32)
    levels = np.maximum(logits - smallest[:, None], 0)
    levels *= inverse[:, None]
    np.rint(levels, out=levels)
    rows[:, 4 : 4 + logits.shape[1]] = levels


def _compare(
    logits: NDArray[np.float32],
    targets: NDArray[np.int32],
    base_rows: NDArray[np.uint16],
    scores: NDArray[np.void],
) -> None:
    n_vocab = logits.shape[1]
    row = np.arange(len(logits))
    largest, log_sum = log_sum_exp(logits)
    scale, minimum = scale_and_minimum(base_rows)
    levels = base_rows[:, 4 : 4 + n_vocab]
    log_p_base = levels * scale[:, None]  # uint16 * float32 is float32
    log_p_base += minimum[:, None]

    scores["nll"] = largest + log_sum - logits[row, targets]
    scores["nll_base"] = -log_p_base[row, targets]
    scores["p_diff"] = np.exp(-scores["nll"]) - np.exp(-scores["nll_base"])
    scores["top1"] = logits.argmax(1) == levels.argmax(1)
    scores["top5"] = (_top_five(logits) == _top_five(levels)).all(1)

    p_base = np.exp(log_p_base)
    p_base *= log_p_base > -RANGE_NATS  # llama-perplexity leaves out what the 16 bits cannot tell from zero
    log_p_base -= logits
    log_p_base += (largest + log_sum)[:, None]  # now log p_base - log p
    p_base *= log_p_base
    scores["kld"] = p_base.sum(1, dtype=np.float64)


def _top_five(values: NDArray[np.generic]) -> NDArray[np.intp]:
    """Indices of the five largest of each row, sorted by index: int [n, 5].

    The five largest lie in the five groups with the largest maxima, so only those groups are searched.
    """
    n, width = values.shape
    if width < 2 * TOP * GROUPS:
        return np.sort(np.argpartition(values, width - TOP, 1)[:, -TOP:], 1)
    n_groups = width // GROUPS
    whole = values[:, : n_groups * GROUPS].reshape(
        n, GROUPS, n_groups
    )  # group g is column g: its maxima are vectorized
    best = np.argpartition(whole.max(1), n_groups - TOP, 1)[:, -TOP:]
    candidates = (best[:, :, None] + n_groups * np.arange(GROUPS)).reshape(n, -1)
    rest = np.broadcast_to(np.arange(n_groups * GROUPS, width), (n, width - n_groups * GROUPS))
    candidates = np.sort(np.concatenate([candidates, rest], 1), 1)
    chosen = np.take_along_axis(values, candidates, 1)
    top = np.argpartition(chosen, chosen.shape[1] - TOP, 1)[:, -TOP:]
    return np.sort(np.take_along_axis(candidates, top, 1), 1)
