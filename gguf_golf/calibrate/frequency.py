"""How often tokens will be said, by how often a text says them."""

import numpy as np
from numpy.typing import NDArray

DISCOUNT = 0.75
"""By how much a token's count exceeds what it is expected to be in another text of the same length: absolute
discounting (Ney, Essen, Kneser 1994, "On structuring probabilistic dependences in stochastic language modelling")."""


def most_frequent(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The `n` most frequent tokens, ascending; among equals those of lower number."""
    return np.sort(np.argsort(-counts, kind="stable")[:n])


def coverage(counts: NDArray[np.int64], n: int) -> float:
    """The share of another text's tokens that the `n` most frequent ones are expected to be; 0 without any text."""
    seen = np.maximum(counts[most_frequent(counts, n)] - DISCOUNT, 0)
    return float(seen.sum() / max(counts.sum(), 1))
