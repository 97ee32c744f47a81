"""What a KL divergence that was measured on one text says about another: models are less certain on some texts.

For small errors d of the logits, the KL divergence is half their variance under the model's distribution p (expanded to
second order). If the errors of tokens are independent with variance s^2, that is s^2 / 2 (1 - sum p^2) on average: it
is proportional to the Gini impurity of p, which takes the original model alone.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gguf_golf.evaluate.divergence import BLOCK_VALUES
from gguf_golf.evaluate.logits_file import LogitsFile, scale_and_minimum
from gguf_golf.evaluate.on_text import BaseOnText, TextSettings
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.threads import resolve


def transfer(base: Path, measured_on: TextSettings, other: TextSettings, threads: int | None = None) -> float:
    """The factor on a KL divergence from `base` that was measured on one text, to expect it on the other.

    Raises InputError as `BaseOnText` does.
    """
    return impurity(base, other, threads) / impurity(base, measured_on, threads)


def impurity(base: Path, text: TextSettings, threads: int | None = None) -> float:
    """Mean of 1 - sum p^2 over the scored tokens of a text, from the base's cached log-probabilities.

    Raises InputError as `BaseOnText` does.
    """
    threads = resolve(threads)
    logits = BaseOnText(base, text, [], cache_dir() / "eval", threads).logits
    with ThreadPoolExecutor(threads) as pool:
        return float(np.mean(list(pool.map(lambda chunk: of_chunk(logits, chunk), range(logits.shape.n_chunk)))))


def of_chunk(logits: LogitsFile, chunk: int) -> float:
    """The same of one chunk of a file of log-probabilities."""
    n, step = logits.shape.n_scored, max(1, BLOCK_VALUES // logits.shape.n_vocab)
    squares = 0.0
    for start in range(0, n, step):
        rows = logits.rows(chunk, slice(start, start + step))
        scale, minimum = scale_and_minimum(rows)
        log_p = rows[:, 4 : 4 + logits.shape.n_vocab] * scale[:, None] + minimum[:, None]
        squares += float(np.exp(2 * log_p).sum(dtype=np.float64))
    return 1 - squares / n
