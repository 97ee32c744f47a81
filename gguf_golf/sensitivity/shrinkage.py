"""Many noisy estimates of quantities that are alike: each moves towards their common mean, the noisier the further.

Empirical Bayes with a normal prior: James and Stein 1961, "Estimation with Quadratic Loss"; Efron and Morris 1975,
"Data Analysis Using Stein's Estimator and Its Generalizations". The variance between the true values is estimated by
moments (DerSimonian and Laird 1986, "Meta-analysis in Clinical Trials").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value and the variance of its error."""

    value: float
    variance: float


@dataclass(frozen=True)
class Common:
    """Where alike quantities lie: their mean, the variance of its error, and the variance of the values about it."""

    mean: float
    variance: float
    between: float

    def prediction(self) -> Estimate:
        """A quantity of this kind that was not measured."""
        return Estimate(self.mean, self.variance + self.between)

    def shrink(self, measured: Estimate) -> Estimate:
        """The measured quantity, given where its like lie: the mean of both, weighted by their precision."""
        prior = self.prediction()
        if prior.variance == 0:
            return prior
        weight = prior.variance / (prior.variance + measured.variance)
        return Estimate(prior.value + weight * (measured.value - prior.value), weight * measured.variance)


def common(measured: Sequence[Estimate], prior: Common) -> Common:
    """What alike quantities have in common, `prior` being what is known before they are measured.

    The prior counts as one more quantity in the mean, and as one more degree of freedom in the variance between, so
    that a single measurement neither fixes the mean nor hides how much such quantities differ.
    """
    if not measured:
        return prior
    values = np.array([each.value for each in measured])
    variances = np.maximum([each.variance for each in measured], 1e-12)
    weights = 1 / variances
    spread = float(weights @ np.square(values - weights @ values / weights.sum()))
    scale = float(weights.sum() - np.square(weights).sum() / weights.sum())
    free = len(measured) - 1
    moment = max(0.0, (spread - free) / scale) if scale > 0 else 0.0
    between = (free * moment + prior.between) / (free + 1)
    precision = np.append(1 / (variances + between), 1 / (prior.variance + prior.between))
    mean = float(precision @ np.append(values, prior.mean) / precision.sum())
    return Common(mean, float(1 / precision.sum()), between)
