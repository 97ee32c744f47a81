"""What measured files teach about predictions: factors on predicted damage, with a prior that they are near 1.

Each tensor's damage is multiplied by a factor for its role (vocabulary, attention, MLP) and one for its type's family
(ours or mainline's); of their sum S, the file's damage is scale * S^(1 + slope). The logarithms of all of these are the
maximum a posteriori of a normal model, found by Gauss-Newton steps: a few files move only what they disagree about.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models.roles import group as role

REFERENCE = 0.05
"""The predicted damage at which `scale` is read, nats."""

SCALE_SD, SLOPE_SD, FACTOR_SD = 0.5, 0.1, 0.15
"""How far the truth may be from the prediction before any file is measured: natural logarithms."""

MEASURED_SD = 0.03
"""What no such model explains of a file's damage, beside the error of its measurement."""

Parts = Mapping[tuple[str, str], float]
"""Predicted damage of a file by (role, family)."""


def part_of(name: str, quant_type: QuantType) -> tuple[str, str]:
    """The part that a tensor's damage counts to."""
    return role(name), "mainline" if quant_type.is_stock else "ours"


@dataclass(frozen=True)
class Observation:
    """A file that was measured: its predicted damage by part, and its measured damage with its standard error, nats."""

    parts: Parts
    kld: float
    kld_se: float


@dataclass(frozen=True)
class Correction:
    """Factors on predicted damages, as natural logarithms; nothing is corrected by default."""

    log_scale: float = 0.0
    slope: float = 0.0
    log_factors: Mapping[str, float] = field(default_factory=dict)

    def factor(self, part: tuple[str, str]) -> float:
        """What a tensor's damage is multiplied by before damages are summed."""
        return math.exp(sum(self.log_factors.get(name, 0.0) for name in part))

    def total(self, damage: float) -> float:
        """The damage of a file whose tensors' damages, each times its factor, sum to `damage`."""
        if damage <= 0:
            return 0.0
        return float(damage * math.exp(self.log_scale + self.slope * math.log(damage / REFERENCE)))


UNCORRECTED = Correction()


def learn(observations: Sequence[Observation]) -> Correction:
    """The correction that these files call for; those without predicted or measured damage are passed over."""
    usable = [each for each in observations if each.kld > 0 and sum(each.parts.values()) > 0]
    names = sorted({name for each in usable for part in each.parts for name in part})
    prior = np.array([SCALE_SD, SLOPE_SD, *[FACTOR_SD] * len(names)]) ** -2.0
    theta = np.zeros(len(prior))
    noise = np.array([math.hypot(MEASURED_SD, each.kld_se / each.kld) for each in usable]) ** -2.0
    for _ in range(5):
        rows = [_linearized(each, names, theta) for each in usable]
        gradient = -prior * theta
        curvature = np.diag(prior)
        for (residual, row), weight in zip(rows, noise, strict=True):
            gradient += weight * residual * row
            curvature += weight * np.outer(row, row)
        theta = theta + np.linalg.solve(curvature, gradient)
    return Correction(float(theta[0]), float(theta[1]), dict(zip(names, theta[2:].tolist(), strict=True)))


def _linearized(
    observation: Observation, names: Sequence[str], theta: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """(ln measured - ln predicted, derivative of ln predicted by theta)."""
    correction = Correction(theta[0], theta[1], dict(zip(names, theta[2:], strict=True)))
    parts = {part: damage * correction.factor(part) for part, damage in observation.parts.items()}
    total = sum(parts.values())
    shares = [sum(damage for part, damage in parts.items() if name in part) / total for name in names]
    row = np.array([1.0, math.log(total / REFERENCE), *(share * (1 + theta[1]) for share in shares)])
    return math.log(observation.kld / correction.total(total)), row
