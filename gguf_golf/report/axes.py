"""The axes along which files are compared. They are never mixed: each has its own scale, chance level and verdict."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from gguf_golf.report import paired, words
from gguf_golf.report.results import Model, Results

Z95 = 1.959964
"""Half the width of a 95% interval, in standard errors."""


@dataclass(frozen=True)
class Value:
    """A measurement and its 95% interval, None where the spread is not known."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def margin(self) -> float | None:
        """Half the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Axis:
    """One way to compare files. `of` gives a file's value, `loss` what it lost against the base and its standard error.

    `pair_error` is the standard error of the difference of two files' losses where both saw the same chunks or
    questions, None where the results do not hold what it takes. `base` and `chance` are reference levels in the units
    of `of`; `no_verdict` says why nothing may be concluded, or is None.
    """

    key: str
    title: str
    noun: str
    caption: str
    lower_is_better: bool
    is_share: bool
    of: Callable[[Model], Value | None]
    loss: Callable[[Model], tuple[float, float | None] | None]
    pair_error: Callable[[Model, Model], float | None]
    base: float | None = None
    chance: float | None = None
    no_verdict: str | None = None

    def show(self, value: Value | None) -> str:
        """The value with its margin."""
        if value is None:
            return "–"
        return words.measured(value.value, value.margin, 100 if self.is_share else 1) + ("%" if self.is_share else "")


def axes(results: Results) -> list[Axis]:
    """The axes on which at least one quantized file was measured, the most sensitive first."""
    base = results.base
    ppl = base.measures.get("ppl") if base else None
    found = [
        Axis(
            "kld_mean",
            "Damage (KL divergence)",
            "KL divergence",
            "nats per token, lower is better",
            True,
            False,
            lambda model: _value(model, "kld_mean", "kld_se"),
            lambda model: _loss(model, "kld_mean", "kld_se"),
            lambda one, other: paired.by_chunk(one, other, "kld"),
        ),
        Axis(
            "top1",
            "Same next token",
            "agreement",
            "share of positions, higher is better",
            False,
            True,
            lambda model: _value(model, "top1", "top1_se"),
            lambda model: _minus(_loss(model, "top1", "top1_se")),
            lambda one, other: paired.by_chunk(one, other, "top1"),
        ),
        Axis(
            "ppl",
            "Perplexity",
            "perplexity",
            "per token, lower is better",
            True,
            False,
            _perplexity,
            lambda model: _loss(model, "ln_ppl_ratio", "ln_ppl_ratio_se"),
            lambda one, other: paired.by_chunk(one, other, "nll"),
            base=ppl,
        ),
        *(_task_axis(name, results) for name in task_names(results)),
    ]
    return [axis for axis in found if any(axis.of(model) for model in results.quants)]


def task_names(results: Results) -> list[str]:
    """The tasks of any file, in the order of the settings, then of their appearance."""
    listed = [str(task.get("name")) for task in results.tasks]
    present = dict.fromkeys(name for model in results.models for name in model.tasks)
    return [name for name in listed if name in present] + [name for name in present if name not in listed]


def _value(model: Model, name: str, error: str) -> Value | None:
    value, se = model.measures.get(name), model.measures.get(error)
    if value is None:
        return None
    return Value(value) if se is None else Value(value, value - Z95 * se, value + Z95 * se)


def _perplexity(model: Model) -> Value | None:
    """With the error of the paired ratio to the base: what all files share (hard and easy chunks) is not counted."""
    value, se = model.measures.get("ppl"), model.measures.get("ln_ppl_ratio_se")
    if value is None:
        return None
    if se is None or se > 10:
        return Value(value)
    return Value(value, value * math.exp(-Z95 * se), value * math.exp(Z95 * se))


def _loss(model: Model, name: str, error: str) -> tuple[float, float | None] | None:
    value = model.measures.get(name)
    return None if value is None else (value, model.measures.get(error))


def _minus(loss: tuple[float, float | None] | None) -> tuple[float, float | None] | None:
    return None if loss is None else (-loss[0], loss[1])


def _task_axis(name: str, results: Results) -> Axis:
    base = results.base.tasks.get(name) if results.base else None
    some = next(model.tasks[name] for model in results.models if name in model.tasks)
    reason = None
    if base is None:
        reason = "the original was not measured on it"
    elif not base.metric.above_chance:
        known = words.interval(base.metric.low, base.metric.high)
        reason = (
            f"the original itself is not above chance: {words.percent(base.metric.score)}"
            f"{f' ({known})' if known else ''} where guessing gives {words.percent(base.chance)}"
        )

    def value(model: Model) -> Value | None:
        task = model.tasks.get(name)
        return Value(task.metric.score, task.metric.low, task.metric.high) if task else None

    def loss(model: Model) -> tuple[float, float | None] | None:
        found = value(model)
        if found is None:
            return None
        return -found.value, None if found.margin is None else found.margin / Z95

    return Axis(
        f"task:{name}",
        name,
        "score",
        f"{some.primary} of {some.n:,} questions, higher is better",
        False,
        True,
        value,
        loss,
        lambda one, other: paired.by_question(one, other, name),
        base=base.metric.score if base else None,
        chance=some.chance or None,
        no_verdict=reason,
    )
