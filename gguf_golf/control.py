"""The control that no plan goes without: files are written and measured on text that planning has not seen.

For a budget these are the planned file, the most promising file of one type and the most promising of llama-quantize's
mixes. What they measure corrects the predictions, the plan is made once more if that changes it, and the best of all
files is handed over. Later budgets profit from what earlier ones measured. A floor on speed is measured as well: a
plan that turns out too slow is made again with all types as much slower.
"""

import hashlib
import mmap
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gguf_golf import files
from gguf_golf.container.metadata import KEY_RECIPE
from gguf_golf.errors import DataError, InputError
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.speed import SpeedSettings, measure_speed
from gguf_golf.journal import Journal, open_journal
from gguf_golf.plan.budget import Budget, parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.correction import Observation, learn
from gguf_golf.plan.inputs import load
from gguf_golf.plan.mixes import mixes
from gguf_golf.plan.planner import Plan, Planner, with_prediction
from gguf_golf.plan.recipe import MARK
from gguf_golf.plan.rivals import mix_rivals, strongest, uniform_rivals
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.job import Job
from gguf_golf.runtime.header import GgufHeader
from gguf_golf.threads import resolve

SPEED_ROUNDS = 2
"""How often a plan that is slower than predicted is made again."""

SPEED_MARGIN = 1.02
"""A plan that is made again is made for a machine slower than measured by this: runs differ."""

WORTH_ANOTHER_ROUND = 0.02
"""A corrected plan is written and measured if it promises to save this share of the damage."""

THREAT = 1.3
"""Rivals predicted to cost less than this multiple of the plan's damage are measured too, not only the best of each."""


@dataclass(frozen=True)
class Trial:
    """One measured file: `kld` with its standard error, nats, on the control text."""

    name: str
    plan: Plan
    kld: float
    kld_se: float


@dataclass(frozen=True)
class Verdict:
    """A budget's files, the planned one first, and the best of them, whose predicted damage is what it measured.

    `tokens_per_second` is what the best generates, measured if the constraints have a floor on speed.
    """

    trials: list[Trial]
    best: Trial
    tokens_per_second: float | None = None

    def summary(self) -> str:
        """What was measured, and what was chosen."""
        measured = ", ".join(f"{trial.name} {trial.kld:.3g} +- {trial.kld_se:.1g}" for trial in self.trials)
        speed = "" if self.tokens_per_second is None else f", which generates {self.tokens_per_second:.1f} tokens/s"
        return f"KLD on held-out text: {measured}; the best is {self.best.name}{speed}"


@dataclass(frozen=True)
class _Measured:
    """A record of the journal; `name` is for people."""

    key: str
    name: str
    kld: float
    kld_se: float


class Control:
    """Measures files of one model. `folder` holds them while they are needed, `journal` what they measured.

    `job` says how files are encoded, its imatrix and Hessians being those that the planner planned with.
    """

    def __init__(
        self, base: Path, planner: Planner, text: TextSettings, folder: Path, journal: Journal, job: Job
    ) -> None:
        self.planner = planner
        self._base, self._text, self._folder, self._journal, self._job = base, text, folder, journal, job
        self._known = {record["key"]: _Measured(**record) for record in journal.records if "kld" in record}
        self._speeds = {record["key"]: float(record["tps"]) for record in journal.records if "tps" in record}
        self._observed: dict[str, Observation] = {}
        candidates = {each.type.name: each.type for group in planner.groups for each in group.choices}
        self._uniform = uniform_rivals(planner.model, list(candidates.values()))
        self._mixes = mix_rivals(mixes(base, has_imatrix=job.imatrix is not None))

    def best(self, budget: Budget, out: Path | None, say: Callable[[str], None] = lambda words: None) -> Verdict:
        """Find the best file for a budget, and write it to `out` if given.

        Raises InputError where none fits, or none that fits is fast enough.
        """
        plan = self._fast_enough(self.planner.plan(budget), budget, say)
        say(f"measuring the plan, {plan.file_bytes / 1e6:.2f} MB")
        trials = [self._trial("the plan", plan)]
        for rivals in (self._uniform, self._mixes):
            for rival, made in strongest(self.planner, rivals, budget, THREAT * trials[0].kld):
                say(f"measuring {rival.kind} {rival.name}, {made.file_bytes / 1e6:.2f} MB")
                trials.append(self._trial(f"{rival.kind} {rival.name}", made))
        self.planner = self.planner.corrected(learn(list(self._observed.values())))
        again = self.planner.plan(budget)
        saved = 1 - self.planner.expected(again.chosen) / (self.planner.expected(plan.chosen) or 1.0)
        if again.chosen != plan.chosen and saved > WORTH_ANOTHER_ROUND:
            say(f"measuring the corrected plan, {again.file_bytes / 1e6:.2f} MB")
            trials.append(self._trial("the corrected plan", again))
            self.planner = self.planner.corrected(learn(list(self._observed.values())))
        best = next(
            (trial for trial in sorted(trials, key=lambda trial: trial.kld) if self._is_fast_enough(trial.plan)), None
        )
        if best is None:
            raise self._too_slow(plan)
        settled = replace(best, plan=with_prediction(best.plan, best.kld))
        if out is not None and not _holds(out, settled.plan):
            self._hand_over(best.plan, settled.plan, out)
        for trial in trials:
            self._path(trial.plan).unlink(missing_ok=True)
        return Verdict(trials, settled, self._speeds.get(_key(best.plan)))

    def _fast_enough(self, plan: Plan, budget: Budget, say: Callable[[str], None]) -> Plan:
        """The plan, or one made again for a machine as slow as this one turns out to be."""
        speed = self.planner.speed
        for _ in range(SPEED_ROUNDS):
            if speed is None or self._is_fast_enough(plan):
                break
            found = self._tokens_per_second(plan)
            say(f"the plan generates {found:.1f} tokens/s instead of {speed.tokens_per_second:g}: planning again")
            self.planner = self.planner.slower(SPEED_MARGIN * self.planner.tokens_per_second(plan) / found)
            plan = self.planner.plan(budget)
        return plan

    def _is_fast_enough(self, plan: Plan) -> bool:
        speed = self.planner.speed
        return speed is None or self._tokens_per_second(plan) >= speed.tokens_per_second

    def _too_slow(self, plan: Plan) -> InputError:
        assert self.planner.speed is not None
        return InputError(
            f"no file of this budget generates {self.planner.speed.tokens_per_second:g} tokens/s on this machine: the "
            f"plan made for it generates {self._tokens_per_second(plan):.1f}; lower --min-speed or the budget"
        )

    def _tokens_per_second(self, plan: Plan) -> float:
        key = _key(plan)
        if key not in self._speeds:
            settings = SpeedSettings(n_prompt=32, repeats=3, threads=resolve(self._job.threads))
            (found,) = measure_speed([self._written(plan)], settings, self._folder / f"speed-{key}")
            (self._folder / f"speed-{key}").unlink()
            self._speeds[key] = found.generate_tps
            self._journal.add({"key": key, "tps": found.generate_tps})
        return self._speeds[key]

    def _hand_over(self, written: Plan, settled: Plan, out: Path) -> None:
        path = self._written(written)
        _replace_recipe(path, written.text, settled.text)
        with files.replace_file(out, [self._base], mark=KEY_RECIPE.encode()) as partial:
            shutil.move(path, partial)

    def _trial(self, name: str, plan: Plan) -> Trial:
        key = _key(plan)
        if key not in self._known:
            results = evaluate(self._base, [self._written(plan)], self._text, threads=self._job.threads)
            measures = results[-1].measures
            assert measures is not None and measures.kld_mean is not None
            found = _Measured(key, name, measures.kld_mean, measures.kld_se or 0.0)
            self._known[key] = found
            self._journal.add(asdict(found))
        known = self._known[key]
        self._observed[key] = Observation(self.planner.parts(plan), known.kld, known.kld_se)
        return Trial(name, plan, known.kld, known.kld_se)

    def _written(self, plan: Plan) -> Path:
        path = self._path(plan)
        if not path.exists():
            recipe = path.with_suffix(".toml")
            files.write_text(recipe, plan.text)
            quantize(self._base, recipe, path, job=self._job)
            recipe.unlink()
        return path

    def _path(self, plan: Plan) -> Path:
        return self._folder / f"trial-{_key(plan)}.gguf"


def _key(plan: Plan) -> str:
    """Names a file by what its tensors become."""
    chosen = "\n".join(f"{name} {line}" for name, line in plan.recipe.tensors.items())
    return hashlib.sha256(chosen.encode()).hexdigest()[:16]


def _holds(out: Path, plan: Plan) -> bool:
    """Whether the file is there already, made by this very recipe. Files appear whole, so its header is enough."""
    if not out.is_file() or out.stat().st_size != plan.file_bytes:
        return False
    with GgufHeader(out) as header:
        return header.text(KEY_RECIPE) == plan.text


def _replace_recipe(path: Path, old: str, new: str) -> None:
    """Exchange the recipe in a file's header for one of the same length."""
    before, after = old.encode(), new.encode()
    assert len(before) == len(after)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        place = data.find(before)
        if place >= 0:
            data[place : place + len(after)] = after
        elif data.find(after) < 0:
            raise DataError(f"{path} does not hold the recipe that it was made from: delete it and run again")


def verified_recipe(
    model_path: Path,
    budget: str,
    out: Path | None,
    text: TextSettings,
    *,
    sensitivity_path: Path | None = None,
    imatrix_path: Path | None = None,
    constraints: Constraints | None = None,
    threads: int | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> Verdict:
    """Plan for a budget, write and measure candidates in a temporary folder, and write the recipe of the best to `out`.

    `text` should be one that neither calibration nor ranking has seen. Raises InputError as `plan` does.
    """
    read = [model_path, sensitivity_path, imatrix_path, text.file]
    if out is not None:
        files.check_output(out, read, mark=MARK, force=force)
    folder = Path.cwd() if out is None else out.resolve().parent
    inputs = load(model_path, sensitivity_path, imatrix_path, folder)
    planner = Planner(inputs.model, inputs.sensitivity, constraints or Constraints(), inputs.imatrix, inputs.source)
    imatrix, hessian = (folder / inputs.source[key] if key in inputs.source else None for key in ("imatrix", "hessian"))
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".gguf-golf-") as trials,
        open_journal(Path(trials) / "measured", text.to_json()) as journal,
    ):
        encoded = Path(trials) / "encoded"
        job = Job(imatrix=imatrix, hessian=hessian, threads=threads, encoded=encoded, progress=False)
        control = Control(model_path, planner, text, Path(trials), journal, job)
        verdict = control.best(parse(budget, inputs.model), None, say)
    if out is not None:
        files.write_text(out, verdict.best.plan.text, read, mark=MARK, force=force)
    return verdict
