"""Axes of a plot: from values to pixels, with round ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to `start`..`end` pixels, logarithmically if `log`; values outside land on the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        at = (self._turn(value) - self._turn(self.low)) / (self._turn(self.high) - self._turn(self.low))
        return round(self.start + min(1.0, max(0.0, at)) * (self.end - self.start), 1)

    def _turn(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self) -> list[float]:
        """About five round values inside; on a logarithmic scale 1, 2, 5 of each decade, or decades alone if many."""
        if not self.log:
            step = _round_step((self.high - self.low) / 4)
            first = math.ceil(self.low / step - 1e-9)
            return [round(k * step, 12) for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        every = math.ceil(len(decades) / 6)
        inner = (1, 2, 5) if len(decades) <= 3 else (1,)
        ticks = [k * 10.0**decade for decade in decades if decade % every == 0 for k in inner]
        return [tick for tick in ticks if self.low <= tick <= self.high]


def fit(values: Iterable[float], start: float, end: float, *, log: bool = False) -> Scale:
    """A scale that holds these values with a little air around them; non-positive ones do not count if `log`."""
    known = [value for value in values if not log or value > 0] or [1.0]
    low, high = min(known), max(known)
    if log:
        low = max(low, high * 1e-12)  # what is smaller is zero to any reader
        air = max(1.08, (high / low) ** 0.06)
        return Scale(low / air, high * air, start, end, log=True)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - air, high + air, start, end)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= rough * (1 - 1e-9))
