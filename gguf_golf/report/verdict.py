"""Which file to take, in words, and how certain that is.

Files are walked from small to large; one joins the ladder only if it is better than every smaller one by more than two
standard errors of the difference and by more than the noise floor. Differences are paired, chunk by chunk or question
by question, where the results hold these; else errors are taken as independent, and true certainty is higher than said.
"""

import itertools
import math
from dataclasses import dataclass, field
from html import escape

from gguf_golf.report import words
from gguf_golf.report.axes import Axis
from gguf_golf.report.results import Model, Results

BANDS = (
    (0.01, "nearly the original"),
    (0.05, "close to the original"),
    (0.2, "noticeably different"),
    (0.5, "strongly different"),
    (math.inf, "badly damaged"),
)
"""Upper KLD in nats, and what this page calls it: a convention, only there to have words."""

CLOSE = 0.05
"""The headline takes the smallest file with at most this KLD."""

_CLEAR, _SEPARATE = 3.0, 2.0  # standard errors


@dataclass(frozen=True)
class Step:
    """A file worth its bytes. `extra_bytes` and `ratio` (of the losses) are against the step below, None for the first.

    `errors` is the distance in standard errors to `rival`, the best other file that is no larger.
    """

    model: Model
    loss: float
    extra_bytes: int | None
    ratio: float | None
    rival: Model | None
    errors: float | None
    band: str | None

    @property
    def certainty(self) -> str:
        """In a word."""
        return "the smallest file" if self.rival is None else certainty(self.errors)


@dataclass(frozen=True)
class Skipped:
    """A file that is not worth its bytes: `rival` is no larger and as good, or better beyond the noise floor.

    `errors` is how far the rival is better, in standard errors.
    """

    model: Model
    rival: Model
    is_better: bool
    errors: float | None

    @property
    def reason(self) -> str:
        """In words."""
        if not self.is_better or (self.errors is not None and self.errors < _SEPARATE):
            return f"indistinguishable from {self.rival.label}, which is no larger"
        said = f"{self.rival.label} is no larger and better: {certainty(self.errors)}"
        known = self.errors is not None and math.isfinite(self.errors)
        return f"{said}, {words.number(self.errors, 2)} standard errors" if known else said


@dataclass
class Verdict:
    """`headline` is one sentence, `advice` follows from it, `evidence` is how certain it is and what else is known."""

    axis: Axis | None
    pick: Step | None
    headline: str
    advice: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    ladder: list[Step] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def as_text(self) -> str:
        """The headline and what follows from it."""
        return "\n".join([self.headline, *self.advice])

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return "".join(f"<p>{escape(sentence)}</p>" for sentence in (self.headline, *self.advice, *self.evidence))


def decide(results: Results, axes: list[Axis]) -> Verdict:
    """The verdict on the first axis that carries one: KL divergence, else perplexity, else a task above chance."""
    axis = next((a for a in axes if a.key != "top1" and not a.no_verdict and _measured(results, a)), None)
    if axis is None:
        reasons = [f"{a.title}: {a.no_verdict}." for a in axes if a.no_verdict]
        return Verdict(None, None, "No verdict: nothing was measured from which one could follow.", evidence=reasons)
    ladder, skipped = _ladder(results, axis)
    pick = _pick(ladder, axis)
    verdict = Verdict(axis, pick, _headline(pick, results, axis), ladder=ladder, skipped=skipped)
    verdict.advice = [*_neighbours(pick, ladder, _measured(results, axis)), *_stock(pick, results, axis)]
    verdict.evidence = [*_certainty(pick, axis), *_basis(results), *_noise(results, axis), *_others(pick, ladder, axes)]
    return verdict


def dominated(results: Results, axis: Axis) -> list[Model]:
    """The quantized files that another, no larger, beats by more than the error of their difference on this axis."""
    known = [] if axis.no_verdict else _measured(results, axis)
    return [worse for worse in known if any(_beats(axis, better, worse) for better in known)]


def frontier(results: Results, axis: Axis) -> list[Model]:
    """The quantized files, small to large, that are better than every smaller one, errors not counted."""
    found: list[Model] = []
    for model in _measured(results, axis):
        if not found or _loss(axis, model)[0] < _loss(axis, found[-1])[0]:
            found.append(model)
    return found


def _measured(results: Results, axis: Axis) -> list[Model]:
    known = [model for model in results.quants if axis.loss(model)]
    return sorted(known, key=lambda model: (model.bytes, _loss(axis, model)[0]))


def _loss(axis: Axis, model: Model) -> tuple[float, float | None]:
    loss = axis.loss(model)
    assert loss is not None
    return loss


def _apart(axis: Axis, worse: Model, better: Model) -> tuple[float, float | None]:
    """The difference of two losses, and the same in standard errors (None if these are unknown)."""
    (high, high_se), (low, low_se) = _loss(axis, worse), _loss(axis, better)
    error = axis.pair_error(worse, better)
    if error is None:
        if high_se is None or low_se is None:
            return high - low, None
        error = math.hypot(high_se, low_se)
    return high - low, (high - low) / error if error else math.copysign(math.inf, high - low)


def certainty(errors: float | None) -> str:
    """A distance in standard errors as a word."""
    if errors is None:
        return "not known: no error was measured"
    if errors >= _CLEAR:
        return "clear"
    return "probable" if errors >= _SEPARATE else "a toss-up"


def _beats(axis: Axis, better: Model, worse: Model) -> bool:
    difference, errors = _apart(axis, worse, better)
    return better.bytes <= worse.bytes and difference > 0 and (errors is None or errors >= _SEPARATE)


def _noise_level(results: Results, axis: Axis) -> float:
    floor = results.noise_floor
    value = axis.of(floor) if floor and axis.key == "kld_mean" else None
    return abs(value.value) + (value.margin or 0.0) if value else 0.0


def _ladder(results: Results, axis: Axis) -> tuple[list[Step], list[Skipped]]:
    noise = _noise_level(results, axis)
    steps: list[Step] = []
    skipped = []
    smaller: list[Model] = []
    for model in _measured(results, axis):
        rival = min(smaller, key=lambda other: _loss(axis, other)[0], default=None)
        smaller.append(model)
        difference, errors = (math.inf, None) if rival is None else _apart(axis, rival, model)
        if difference <= noise or (errors is not None and errors < _SEPARATE):
            assert rival is not None
            skipped.append(Skipped(model, rival, -difference > noise, None if errors is None else -errors))
            continue
        below = steps[-1] if steps else None
        loss = _loss(axis, model)[0]
        steps.append(
            Step(
                model=model,
                loss=loss,
                extra_bytes=model.bytes - below.model.bytes if below else None,
                ratio=loss / below.loss if below and below.loss > 0 else None,
                rival=rival,
                errors=errors,
                band=band(loss, noise) if axis.key == "kld_mean" else None,
            )
        )
    return steps, skipped


def band(kld: float, noise: float = 0.0) -> str:
    """What the page calls a mean KL divergence in nats; `noise` is the level of rounding."""
    if kld <= noise:
        return "indistinguishable from the original"
    return next(name for limit, name in BANDS if kld <= limit)


def _pick(ladder: list[Step], axis: Axis) -> Step:
    close = [step for step in ladder if axis.key == "kld_mean" and step.loss <= CLOSE]
    return close[0] if close else ladder[-1]


def describe(model: Model, results: Results) -> str:
    """What a file does, measured, in a reader's words."""
    said = []
    if "top1" in model.measures:
        said.append(
            f"it rates the same next word (token) most likely as the original in"
            f" {100 * model.measures['top1']:.0f} of 100 places"
        )
    if "ln_ppl_ratio" in model.measures:
        change = 100 * math.expm1(min(model.measures["ln_ppl_ratio"], 50))
        direction = "higher" if change >= 0 else "lower"
        said.append(f"its perplexity is {words.number(abs(change), 2)}% {direction}")
    return words.listing(said)


def _headline(pick: Step, results: Results, axis: Axis) -> str:
    model, base = pick.model, results.base
    share = (
        f", {100 * model.bytes / base.bytes:.0f}% of the original's {words.size(base.bytes)}"
        if base and base.bytes
        else ""
    )
    opening = "Take"
    if axis.key == "kld_mean" and pick.loss > CLOSE:
        opening = "No file here stays close to the original; the least damaged is"
    opening += f" {model.file} ({words.size(model.bytes)}{share})"
    said = describe(model, results)
    return f"{opening}: {said}." if said else f"{opening}."


def _neighbours(pick: Step, ladder: list[Step], known: list[Model]) -> list[str]:
    said = []
    at = ladder.index(pick)
    above = ladder[at + 1 :]
    if above and pick.loss > 0:
        better = next((step for step in above if step.loss <= 0.55 * pick.loss), above[-1])
        more = words.size(better.model.bytes - pick.model.bytes)
        said.append(f"If you have {more} more, {better.model.label} {words.cut(better.loss / pick.loss)}.")
    elif not above and any(model.bytes > pick.model.bytes for model in known):
        said.append("No larger file here is better by more than the measurement error.")
    if at > 0:
        less = ladder[at - 1]
        ratio = f" with {words.times(less.loss / pick.loss)} the damage" if pick.loss > 0 else ""
        said.append(
            f"Under {words.size(pick.model.bytes)}, take {less.model.label} ({words.size(less.model.bytes)}){ratio}."
        )
    if at > 1:
        least = ladder[0]
        said.append(
            f"The smallest file, {least.model.label} ({words.size(least.model.bytes)}),"
            f" is {least.band or 'the worst'}"
            + (f": {words.times(least.loss / pick.loss)} the damage." if pick.loss > 0 else ".")
        )
    return said


def _stock(pick: Step, results: Results, axis: Axis) -> list[str]:
    """Who has no patched runtime needs another file."""
    if pick.model.is_stock is not False:
        return []
    plain = [model for model in _measured(results, axis) if model.is_stock]
    need = f"{pick.model.label} needs gguf-golf's runtime"
    if not plain:
        return [f"{need}; there is no file here that plain llama.cpp reads."]
    wanted = [
        model for model in plain if _loss(axis, model)[0] <= max(pick.loss, CLOSE if axis.key == "kld_mean" else 0)
    ]
    best = wanted[0] if wanted else min(plain, key=lambda model: _loss(axis, model)[0])
    value = axis.show(axis.of(best))
    return [f"{need}; for plain llama.cpp take {best.label} ({words.size(best.bytes)}, {axis.noun} {value})."]


def _certainty(pick: Step, axis: Axis) -> list[str]:
    if pick.rival is None:
        return ["It is the smallest file here, so there is nothing else of its size to compare with."]
    mine, theirs = axis.show(axis.of(pick.model)), axis.show(axis.of(pick.rival))
    said = (
        f"{pick.certainty.capitalize()}: the next best file that is no larger, {pick.rival.label}, has a"
        f" {axis.noun} of {theirs}, this one {mine}"
    )
    if pick.errors is not None and math.isfinite(pick.errors):
        said += f", {words.number(pick.errors, 2)} standard errors apart"
        how = {"kld_mean": "chunk by chunk", "ppl": "chunk by chunk"}.get(axis.key, "question by question")
        paired = axis.pair_error(pick.model, pick.rival) is not None
        said += f" when compared {how}" if paired else " if their errors were independent"
    return [said + "."]


def _basis(results: Results) -> list[str]:
    tokens = max((model.measures.get("tokens", 0) for model in results.quants), default=0)
    if not tokens:
        return []
    names = [str(text.get("name", "?")) for text in results.texts]
    chunks = sum(int(text["n_chunks"]) for text in results.texts if isinstance(text.get("n_chunks"), int))
    said = f"Measured on {tokens:,.0f} tokens"
    if names:
        said += f" from {chunks} chunks of {words.listing(names)}"
    if len(names) == 1:
        said += "; one text only, other kinds of text may rank close files differently"
    if all("kld_se" not in model.measures for model in results.quants):
        said += "; without error estimates (one chunk has no spread), so close calls cannot be judged"
    return [said + "."]


def _noise(results: Results, axis: Axis) -> list[str]:
    if axis.key != "kld_mean":
        return []
    if results.noise_floor is None:
        return ["The noise floor was not measured (--noise-floor), so the smallest differences may be rounding."]
    level = _noise_level(results, axis)
    floor = (
        f"Noise floor: the original against itself through another path differs by up to {words.number(level, 2)};"
        " what is less than that is rounding, not quality."
    )
    return [floor, *_repacked(results, axis)]


def _repacked(results: Results, axis: Axis) -> list[str]:
    """By how much the files that this processor repacks differ from what is stored."""
    moved: dict[str, float] = {}
    for model in results.quants:
        stored = results.as_stored(model)
        here, there = axis.of(model), axis.of(stored) if stored else None
        if here and there:
            moved[model.label] = abs(here.value - there.value)
    if not moved:
        return []
    named, most = words.listing(list(moved)), words.number(max(moved.values()), 2)
    return [
        f"{named} {'is' if len(moved) == 1 else 'are'} repacked for this processor when loaded, which moves the KL "
        f"divergence by up to {most}; other processors repack other types."
    ]


def _others(pick: Step, ladder: list[Step], axes: list[Axis]) -> list[str]:
    """What the other axes say: nothing, the same, or the opposite."""
    said = []
    silent: dict[str, list[str]] = {}
    for axis in axes:
        if axis.no_verdict:
            reason, _, numbers = axis.no_verdict.partition(": ")
            silent.setdefault(reason, []).append(f"{axis.title} ({numbers})" if numbers else axis.title)
        elif axis.key.startswith("task:"):
            said += _task(pick, axis)
        elif axis.key != "kld_mean":
            said += _order(ladder, axis)
    for reason, titles in silent.items():
        said.append(f"No conclusion from {words.listing(titles)}, because {reason}.")
    return said


def _task(pick: Step, axis: Axis) -> list[str]:
    task = pick.model.tasks.get(axis.key.removeprefix("task:"))
    if task is None or axis.base is None:
        return []
    metric = task.metric
    said = (
        f"{axis.title}: {pick.model.label} answers {words.percent(metric.score)} correctly, the original"
        f" {words.percent(axis.base)} (guessing: {words.percent(task.chance)})"
    )
    if metric.mcnemar_p is not None and not metric.lost and not metric.gained:
        said += "; the same questions, one by one"
    elif metric.mcnemar_p is not None:
        differ = "a difference beyond chance" if metric.mcnemar_p < 0.05 else "a difference that chance explains"
        p = words.number(metric.mcnemar_p, 2)
        said += f"; {differ} (p = {p}, {len(metric.lost)} lost, {len(metric.gained)} gained)"
    return [said + "."]


def _order(ladder: list[Step], axis: Axis) -> list[str]:
    known = [step.model for step in ladder if axis.loss(step.model)]
    if len(known) < 2:
        return []
    pairs = list(itertools.pairwise(known))
    against = [(small, large) for small, large in pairs if _apart(axis, small, large)[0] < 0]
    if not against:
        return [f"{axis.title} ranks these files the same way."]
    small, large = against[0]
    errors = _apart(axis, large, small)[1]
    weight = "within its error" if errors is not None and errors < _SEPARATE else "beyond its error"
    return [f"{axis.title} disagrees on {large.label} and {small.label}, {weight}."]
