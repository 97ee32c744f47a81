"""Which share of the base's quality a file keeps: (score - chance) / (base score - chance), on each axis alone.

Text prediction: the score is the mean log-probability of the right token, chance is a uniform guess among the
vocabulary. Tasks: the results file holds the share and its paired interval. Agreement on the next token is a share by
itself; KL divergence is none, it has no level of chance.
"""

import math
from dataclasses import dataclass

from gguf_golf.report import words
from gguf_golf.report.axes import Z95, Axis, Value
from gguf_golf.report.results import Model, Results
from gguf_golf.report.verdict import band

MISLEADING = 0.2
"""KLD in nats from which on a share of text prediction says nothing good of a file."""


@dataclass(frozen=True)
class Share:
    """One axis: what is retained by each model, in the models' order; `note` says why if nothing can be said.

    `misleads` has, for each model, what the page says in place of a share that would sound better than the file is.
    """

    title: str
    values: list[Value | None]
    misleads: list[str]
    note: str | None = None

    def show(self, at: int) -> str:
        """One model's share in percent, with its interval."""
        value = self.values[at]
        if value is None or self.misleads[at]:
            return self.misleads[at] or "–"
        interval = words.interval(value.low, value.high)
        return f"{100 * value.value:.1f}" + (f" ({interval})" if interval else "")


def shares(results: Results, axes: list[Axis]) -> list[Share]:
    """The axes on which a share can be given, over `results.quants`."""
    found: list[Share] = []
    none = [""] * len(results.quants)
    for axis in axes:
        if axis.key == "top1":
            found.append(Share(axis.title, [axis.of(model) for model in results.quants], none))
        elif axis.key == "ppl":
            predicted = [_prediction(results, model) for model in results.quants]
            found.append(Share("Text prediction", predicted, [_misleading(model) for model in results.quants]))
        elif axis.key.startswith("task:"):
            name = axis.key.removeprefix("task:")
            kept = [None if axis.no_verdict else _task(model, name) for model in results.quants]
            found.append(Share(axis.title, kept, none, axis.no_verdict))
    return [share for share in found if share.note or any(share.values)]


def _misleading(model: Model) -> str:
    """The name of a file's damage where it is great: a model that guesses frequent words predicts most of a text."""
    kld = model.measures.get("kld_mean", 0.0)
    return band(kld) if kld > MISLEADING else ""


def _prediction(results: Results, model: Model) -> Value | None:
    base = results.base
    known = [*model.tensors, *(base.tensors if base else [])]  # another engine's tensors are not listed
    vocabulary = next((t.shape[0] for t in known if t.name == "token_embd.weight" and t.shape), 0)
    ratio, se = model.measures.get("ln_ppl_ratio"), model.measures.get("ln_ppl_ratio_se")
    if base is None or ratio is None or vocabulary < 2 or "ppl" not in base.measures:
        return None
    above_chance = math.log(vocabulary) - math.log(base.measures["ppl"])
    if above_chance <= 0:
        return None
    kept = 1 - ratio / above_chance
    margin = None if se is None else Z95 * se / above_chance
    return Value(kept) if margin is None else Value(kept, kept - margin, kept + margin)


def _task(model: Model, name: str) -> Value | None:
    task = model.tasks.get(name)
    if task is None or task.metric.retained is None:
        return None
    return Value(task.metric.retained, task.metric.retained_low, task.metric.retained_high)
