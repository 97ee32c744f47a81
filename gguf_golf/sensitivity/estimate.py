"""From measurements to estimates with error bars: each tensor's coefficient and exponent, see `TensorSensitivity`.

The coefficient comes from the tensor's own measurement at the anchor. Exponents are noisy and alike, so each is shrunk
towards the mean of its kind (attn_q, ffn_down, ...), and that towards the mean of the model (shrinkage.py); tensors
whose exponent was not measured take their kind's.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gguf_golf.models.roles import kind
from gguf_golf.sensitivity.result import Measurement, TensorSensitivity
from gguf_golf.sensitivity.shrinkage import Common, Estimate, common

EXPONENTS = Common(mean=1.0, variance=0.2**2, between=0.1**2)
"""What is known before measuring: KL divergence is quadratic in a small perturbation, so exponents are near 1."""

LOWEST_EXPONENT, HIGHEST_EXPONENT = 0.8, 2.0
"""No measurement makes a plan believe in less or more: below, the coarsest type would look like a bargain."""

UNREACHED_SD = 0.7
"""Uncertainty of a tensor that the text does not reach, whose coefficient is taken from others: a factor of two."""


def estimate(tensors: Sequence[TensorSensitivity]) -> list[TensorSensitivity]:
    """The tensors with their coefficients, exponents and error bars; without any measurement, as they are."""
    reached = [tensor for tensor in tensors if tensor.measured]
    if not reached:
        return list(tensors)
    kinds = sorted({kind(tensor.name) for tensor in tensors})
    exponents = _moderated({each.name: _exponent(*each.measured) for each in reached if len(each.measured) > 1})
    of_model = common(list(exponents.values()), EXPONENTS)
    prior = Common(of_model.mean, of_model.variance, EXPONENTS.between)
    of_kind = {
        each: common([value for name, value in exponents.items() if kind(name) == each], prior) for each in kinds
    }
    estimated = []
    for tensor in tensors:
        alike = of_kind[kind(tensor.name)]
        exponent = alike.shrink(exponents[tensor.name]) if tensor.name in exponents else alike.prediction()
        coefficient, deviation, anchor = _coefficient(tensor, reached)
        estimated.append(
            replace(
                tensor,
                coefficient=coefficient,
                coefficient_sd=deviation,
                anchor=anchor,
                exponent=min(max(exponent.value, LOWEST_EXPONENT), HIGHEST_EXPONENT),
                exponent_sd=math.sqrt(exponent.variance),
            )
        )
    return estimated


def _moderated(exponents: dict[str, Estimate]) -> dict[str, Estimate]:
    """The estimates with variances that are averaged with the median of all: each comes from a few segments only.

    Otherwise the one whose variance happens to come out small would be believed most (Smyth 2004, "Linear models and
    empirical Bayes methods for assessing differential expression").
    """
    finite = [each.variance for each in exponents.values() if math.isfinite(each.variance)]
    if not finite:
        return exponents
    typical = float(np.median(finite))
    return {name: Estimate(each.value, (each.variance + typical) / 2) for name, each in exponents.items()}


def _coefficient(tensor: TensorSensitivity, reached: Sequence[TensorSensitivity]) -> tuple[float, float, float]:
    """(coefficient, standard error of its logarithm, anchor); for a tensor that was not reached, from its like."""
    if tensor.measured:
        anchor = tensor.measured[0]
        value, deviation = mean_and_error(anchor.kld)
        return value / anchor.error if anchor.error > 0 else 0.0, deviation, anchor.error or 1.0
    alike = [other for other in reached if kind(other.name) == kind(tensor.name)] or list(reached)
    anchors = [(each.measured[0], math.prod(each.shape)) for each in alike]
    per_weight = [mean_and_error(anchor.kld)[0] / (anchor.error or 1) / size for anchor, size in anchors]
    anchor_error = float(np.median([anchor.error for anchor, _ in anchors]))
    return float(np.median(per_weight)) * math.prod(tensor.shape), UNREACHED_SD, anchor_error or 1.0


def mean_and_error(segments: Sequence[float]) -> tuple[float, float]:
    """Mean and the standard error of its logarithm. A mean below zero is noise about zero."""
    values = np.array(segments)
    mean = max(0.0, float(values.mean()))
    if mean == 0 or len(values) < 2:
        return mean, UNREACHED_SD
    return mean, min(UNREACHED_SD, float(values.std(ddof=1)) / math.sqrt(len(values)) / mean)


def _exponent(anchor: Measurement, beyond: Measurement) -> Estimate:
    """The slope of log damage over log E between two measurements, on the segments of text that both have.

    Its variance is the jackknife's over segments: both measurements saw the same text, whose difficulty cancels.
    """
    shared = min(len(anchor.kld), len(beyond.kld))
    low, high = np.array(anchor.kld[:shared]), np.array(beyond.kld[:shared])
    if beyond.error <= anchor.error or low.sum() <= 0 or high.sum() <= 0:
        return Estimate(EXPONENTS.mean, math.inf)
    span = math.log(beyond.error / anchor.error)
    slope = math.log(high.sum() / low.sum()) / span
    if shared < 2:
        return Estimate(slope, 1.0)
    without_each = np.log(np.maximum(high.sum() - high, 1e-12) / np.maximum(low.sum() - low, 1e-12)) / span
    return Estimate(slope, float((shared - 1) * without_each.var()))
