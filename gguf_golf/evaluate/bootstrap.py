"""Standard errors by block bootstrap: whole chunks are drawn, because tokens of one chunk are not independent."""

import numpy as np
from numpy.typing import NDArray

SAMPLES = 1000
SEED = 20240229  # any fixed number: the same scores always give the same errors


def chunk_weights(n_chunk: int) -> NDArray[np.int64]:
    """How often each chunk was drawn: int64 [SAMPLES, n_chunk], rows sum to n_chunk."""
    generator = np.random.default_rng(SEED)
    return generator.multinomial(n_chunk, np.full(n_chunk, 1 / n_chunk), SAMPLES)


def mean_error(values: NDArray[np.floating]) -> float | None:
    """Standard error of the mean of values [n_chunk, n]; None for a single chunk, which shows no spread."""
    samples = mean_samples(values)
    return None if samples is None else float(samples.std(ddof=1))


def mean_samples(values: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Bootstrap means f64 [SAMPLES] of values [n_chunk, n] with chunks of equal size; None for a single chunk."""
    if len(values) < 2:
        return None
    samples: NDArray[np.float64] = chunk_weights(len(values)) @ values.mean(1, dtype=np.float64) / len(values)
    return samples


def quantile_errors(values: NDArray[np.floating], fractions: tuple[float, ...]) -> list[float | None]:
    """Standard errors of quantiles of all values [n_chunk, n] together; None each for a single chunk."""
    n_chunk, n = values.shape
    if n_chunk < 2:
        return [None] * len(fractions)
    order = np.argsort(values, axis=None)
    ascending = values.reshape(-1)[order]
    chunk_of = order // n
    found = np.empty((SAMPLES, len(fractions)))
    for sample, weights in enumerate(chunk_weights(n_chunk)):
        cumulated = np.cumsum(weights[chunk_of])
        ranks = np.multiply(fractions, cumulated[-1])
        found[sample] = ascending[np.searchsorted(cumulated, ranks).clip(max=len(ascending) - 1)]
    return [float(error) for error in found.std(0, ddof=1)]
