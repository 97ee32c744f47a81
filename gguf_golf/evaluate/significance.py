"""Statistics of right and wrong answers: intervals, paired tests, and the share of quality that a model retained."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr

Z95 = 1.959963984540054
RESAMPLES = 2000
SEED = 20240229


def wilson(right: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share of `right` (may be fractional: averaged permutations) in n answers."""
    share = right / n
    square = Z95**2
    center = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    # rounding must not turn none right into a score above nothing
    return 0.0 if right <= 0 else max(0.0, center - half), 1.0 if right >= n else min(1.0, center + half)


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test: p-value of `lost` and `gained` discordant pairs if neither model were better."""
    return min(1.0, 2 * float(bdtr(min(lost, gained), lost + gained, 0.5)))  # twice the binomial's smaller tail


def retained(
    scores: Sequence[float], base: Sequence[float], chance: float
) -> tuple[float | None, float | None, float | None]:
    """(score - chance) / (base score - chance) over paired questions, with its 95% interval (paired bootstrap).

    `scores` and `base` hold each question's score, 0 to 1, in the same order. All None where the base is not above
    chance: Wilson's lower bound of its score does not exceed `chance`. The interval adds two pseudo-questions, one lost
    and one gained: zero flips in n questions still allow about 3 in n (the rule of three). Resamples in which the base
    is not above chance are dropped; they only occur with few questions.
    """
    ours, theirs = np.asarray(scores, np.float64), np.asarray(base, np.float64)
    if not above_chance(float(theirs.sum()), len(theirs), chance):
        return None, None, None
    generator = np.random.default_rng(SEED)
    n = len(ours) + 2
    weights = generator.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
    kept, whole = weights @ [*ours, 0, 1] - chance, weights @ [*theirs, 1, 0] - chance
    low, high = np.quantile(kept[whole > 0] / whole[whole > 0], (0.025, 0.975))
    share = (ours.mean() - chance) / (theirs.mean() - chance)
    return float(share), float(low), float(high)


def above_chance(right: float, n: int, chance: float) -> bool:
    """Whether a score is above guessing: only then does losing part of it mean anything."""
    return wilson(right, n)[0] > chance
