"""What a KL divergence that was measured on one text says about another: models are less certain on some texts.

For small errors of the logits, the KL divergence is half their variance under the model's distribution p (expanded to
second order). Where the errors are a fraction of the logits' own differences, it is proportional to the variance of
log p under p, the varentropy (Kontoyiannis and Verdu 2014, "Optimal Lossless Data Compression: Non-Asymptotics and
Asymptotics"), which takes the original model alone. docs/planning.md compares it with other measures.
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
    return varentropy(base, other, threads) / varentropy(base, measured_on, threads)


def varentropy(base: Path, text: TextSettings, threads: int | None = None) -> float:
    """Mean over the scored tokens of a text of the variance of log p under p, squared nats, from the base's cache.

    Raises InputError as `BaseOnText` does.
    """
    threads = resolve(threads)
    logits = BaseOnText(base, text, [], cache_dir() / "eval", threads).logits
    with ThreadPoolExecutor(threads) as pool:
        return float(np.mean(list(pool.map(lambda chunk: of_chunk(logits, chunk), range(logits.shape.n_chunk)))))


def of_chunk(logits: LogitsFile, chunk: int) -> float:
    """The same of one chunk of a file of log-probabilities."""
    n, step = logits.shape.n_scored, max(1, BLOCK_VALUES // logits.shape.n_vocab)
    total = 0.0
    for start in range(0, n, step):
        rows = logits.rows(chunk, slice(start, start + step))
        scale, minimum = scale_and_minimum(rows)
        log_p = rows[:, 4 : 4 + logits.shape.n_vocab] * scale[:, None] + minimum[:, None]
        weighted = np.exp(log_p)
        weighted *= log_p
        negative_entropy = weighted.sum(1, dtype=np.float64)
        weighted *= log_p
        total += float((weighted.sum(1, dtype=np.float64) - np.square(negative_entropy)).sum())
    return total / n
