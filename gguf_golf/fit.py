"""The whole pipeline in one call: convert, calibrate, rank, plan and control, evaluate, report. It composes the rooms.

Everything between the model and the files asked for lies in a work folder, one for each (model, text, settings).
Steps whose output exists are skipped; long steps resume.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gguf_golf import __version__
from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.collect import collect
from gguf_golf.calibrate.split import split
from gguf_golf.container.metadata import KEY_RECIPE, tuned_words
from gguf_golf.control import Control, Verdict
from gguf_golf.errors import InputError
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.results import ModelResult, document, write_json
from gguf_golf.evaluate.varentropy import transfer
from gguf_golf.files import check_output, write_text
from gguf_golf.journal import open_journal
from gguf_golf.models import Model, open_model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.gguf_file import KEY_KEPT
from gguf_golf.models.hashing import file_sha256
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan.budget import Budget, Memory, n_weights, parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.inputs import load
from gguf_golf.plan.offload import Offload, offload
from gguf_golf.plan.planner import Plan, Planner
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.forecast import counted
from gguf_golf.quantize.job import Job
from gguf_golf.quantize.prepare import source_precision
from gguf_golf.report import write_report
from gguf_golf.runtime import library
from gguf_golf.runtime.header import GgufHeader
from gguf_golf.sensitivity.measure import measure
from gguf_golf.texts import CALIBRATION, EVALUATION
from gguf_golf.tune import require_extra
from gguf_golf.tune.settings import METADATA_BYTES
from gguf_golf.tune.settings import Settings as TuneSettings

Say = Callable[[str], None]

RANKED = "sensitivity.json"
"""The file of a work folder that planning starts from."""


@dataclass(frozen=True)
class Settings:
    """What to calibrate and to evaluate on; None means the texts that come with gguf-golf. Chunks are of `n_ctx`.

    The beginning of `text` calibrates; other passages of it rank the tensors and control the plans. `feedback`
    collects Hessians as well, and encodes TCQ types with error feedback. `tune` says how to train the files that were
    chosen; None does not. `vram` is a GPU's memory, between which and the host's files are divided (plan/offload.py).
    """

    text: Path | None = None
    eval_text: Path | None = None
    n_ctx: int = 512
    calibration_chunks: int = 32
    ranking_chunks: int = 1
    control_chunks: int = 16
    eval_chunks: int = 40
    feedback: bool = False
    threads: int | None = None
    tune: TuneSettings | None = None
    vram: Memory | None = None


@dataclass(frozen=True)
class Fitted:
    """One budget's outcome: the file, what it was chosen from, and what was measured of it.

    `predicted_kld` is what the control expects on the evaluation's text, nats: the file was not measured there for it.
    """

    path: Path
    verdict: Verdict
    result: ModelResult
    predicted_kld: float
    offload: Offload | None = None

    @property
    def plan(self) -> Plan:
        """The recipe of the file that was chosen."""
        return self.verdict.best.plan


def fit(
    model_path: Path,
    budgets: Sequence[str],
    outs: Sequence[Path],
    settings: Settings,
    constraints: Constraints,
    say: Say,
    command: str | None = None,
) -> list[Fitted]:
    """Write the best file for each budget to the path beside it, measure all, and write one report.

    `command` is what makes all of it again, for the report.
    Results and page lie beside the first file: NAME.json and NAME.html. Raises InputError as the steps do; a budget
    that is too small is found before anything is written for it.
    """
    model = open_model(model_path)
    if settings.tune is not None:
        require_extra()
    if settings.tune is not None and not model_path.is_dir():
        raise InputError(f"{model_path} cannot be tuned: training needs the Hugging Face folder that it was made from")
    constraints = _allowed(constraints, settings)
    wanted = [_budget(budget, model, settings) for budget in budgets]
    for out in outs:
        check_output(out, [model_path, settings.text, settings.eval_text], mark=KEY_RECIPE.encode())
    with ExitStack() as stack:
        text, eval_text = settings.text or CALIBRATION, settings.eval_text or EVALUATION
        work = _work_folder(outs[0].parent, model, text, settings)
        work.mkdir(parents=True, exist_ok=True)
        clock = _Clock(model, settings, len(budgets), say)
        base = _base(model_path, model, work, clock, settings)
        texts = _texts(base, text, work, settings)
        imatrix, hessian = _calibrated(base, text, texts, work, clock, settings)
        for note in imatrix_file.read(imatrix).notes():
            say(f"note: {note}")
        sensitivity = _ranked(base, imatrix, hessian, texts, work, clock, settings)
        inputs = load(base, sensitivity, imatrix, work)
        planner = Planner(inputs.model, inputs.sensitivity, constraints, inputs.imatrix, inputs.source)
        plans = [planner.plan(budget) for budget in wanted]  # what cannot be is said before any is tried
        _offloads(model, plans, settings)
        job = Job(imatrix=imatrix, hessian=hessian, threads=settings.threads, encoded=work / "encoded")
        controlled = TextSettings(texts.control, settings.n_ctx, settings.control_chunks)
        journal = stack.enter_context(open_journal(work / "control.measured", controlled.to_json()))
        control = Control(base, planner, controlled, work, journal, job)
        verdicts = []
        for budget, out, plan in zip(wanted, outs, plans, strict=True):
            clock.step(
                "control", f"planning {budget.text}: writing and measuring candidates of {plan.file_bytes / 1e6:.2f} MB"
            )
            chosen = out if settings.tune is None else _untuned(work, out)
            verdicts.append(control.best(budget, chosen))
            if settings.tune is not None:
                clock.step("tune", f"tuning {out.name}")
                _tune(model_path, verdicts[-1].best.plan, out, work, job, settings.tune, say)
        if job.encoded is not None and job.encoded.is_dir():  # large, and no budget is left that needs it
            shutil.rmtree(job.encoded)
        clock.step("evaluate", f"measuring on {settings.eval_chunks} chunks of {eval_text.name}")
        scored = TextSettings(eval_text, settings.n_ctx, settings.eval_chunks)
        results = evaluate(base, outs, scored, threads=settings.threads, noise_floor=True)
        results_path, report = beside(outs[0], ".json"), beside(outs[0], ".html")
        write_json(document(results, {"texts": [scored.to_json()]}, command), results_path)
        write_report([results_path], report)
        clock.done()
    measured = [result for result in results if result.role == "quant"]
    offloads = _offloads(model, [verdict.best.plan for verdict in verdicts], settings)
    factor = transfer(base, controlled, scored, settings.threads)
    predicted = [factor * verdict.best.kld for verdict in verdicts]
    return [Fitted(*each) for each in zip(outs, verdicts, measured, predicted, offloads, strict=True)]


def _budget(text: str, model: Model, settings: Settings) -> Budget:
    """The budget, less what a tuned file says of its tuning."""
    budget = parse(text, model)
    if settings.tune is None or budget.file_bytes is None:
        return budget
    return replace(budget, file_bytes=budget.file_bytes - METADATA_BYTES)


def _allowed(constraints: Constraints, settings: Settings) -> Constraints:
    """Without protected rows where a file is tuned: their residual would be of weights that no training has moved."""
    return constraints if settings.tune is None else replace(constraints, protects_rows=False)


def _tune(model_path: Path, plan: Plan, out: Path, work: Path, job: Job, settings: TuneSettings, say: Say) -> None:
    """Write the plan's file with tuned content, unless `out` is that file already."""
    from gguf_golf.tune.tune import tune  # an extra

    if out.is_file():
        with GgufHeader(out) as header:
            if header.text(KEY_RECIPE) == plan.text and tuned_words(header) is not None:
                return
    recipe = work / f"{out.stem}.toml"
    write_text(recipe, plan.text)
    untuned = _untuned(work, out)
    with GgufHeader(untuned) as header:
        if header.length(KEY_KEPT) is None:  # else its types are not all those of the recipe
            settings = replace(settings, start=untuned)
    done = tune(model_path, out, recipe=recipe, settings=settings, job=replace(job, device=settings.device), say=say)
    for note in done.notes:
        say(f"note: {note}")


def _untuned(work: Path, out: Path) -> Path:
    """Where the file that `out` is tuned from is kept."""
    return work / f"untuned-{out.name}"


def beside(out: Path, suffix: str) -> Path:
    """The file next to `out` that has another suffix; other dots of its name stay."""
    return out.with_name(out.name.removesuffix(".gguf") + suffix)


@dataclass(frozen=True)
class DryRun:
    """What `fit` would do: a plan for each budget, and seconds that everything takes.

    Before tensors were ranked on text, plans are by the cheap proxy (`guessed`): the sizes hold, the types may not.
    """

    plans: list[Plan]
    seconds: float
    guessed: bool

    def __str__(self) -> str:
        lines = [
            f"{plan.recipe.budget}: {plan.file_bytes:,} bytes; "
            + counted(str(line) for line in plan.recipe.tensors.values())
            for plan in self.plans
        ]
        if self.guessed:
            lines.append("types are a guess from the weights alone: fit measures before it plans")
        return "\n".join([*lines, f"all steps take about {_duration(self.seconds)}"])


def dry_run(
    model_path: Path, budgets: Sequence[str], outs: Sequence[Path], settings: Settings, constraints: Constraints
) -> DryRun:
    """What `fit` would do; nothing is written. Raises InputError as `fit` does."""
    model = open_model(model_path)
    constraints = _allowed(constraints, settings)
    wanted = [_budget(budget, model, settings) for budget in budgets]
    for out in outs:
        check_output(out, [model_path, settings.text, settings.eval_text], mark=KEY_RECIPE.encode())
    work = _work_folder(outs[0].parent, model, settings.text or CALIBRATION, settings)
    base, guessed = _base_path(model_path, work), not (work / RANKED).exists()
    with TemporaryDirectory() as folder:
        if guessed:
            base, work = model_path, Path(folder)
            measure(base, work / RANKED, quick=True, threads=settings.threads)
        inputs = load(base, work / RANKED, None, work)
        planner = Planner(inputs.model, inputs.sensitivity, constraints, inputs.imatrix, inputs.source)
        plans = [planner.plan(budget) for budget in wanted]
    clock = _Clock(model, settings, len(budgets), lambda words: None)
    return DryRun(plans, clock.left(), guessed)


def _offloads(model: Model, plans: Sequence[Plan], settings: Settings) -> list[Offload | None]:
    """How a GPU's memory and the host's divide each plan's file. Raises InputError where they cannot."""
    return [None if settings.vram is None else offload(model, plan.recipe, settings.vram) for plan in plans]


def describe(fits: Sequence[Fitted]) -> str:
    """Lines on each file: size, predicted and measured damage, what it was chosen from, and what a GPU takes of it."""
    lines = []
    for each in fits:
        measures = each.result.measures
        assert measures is not None and measures.kld_mean is not None
        error = "" if measures.kld_se is None else f" +- {measures.kld_se:.2g}"
        lines.append(
            f"{each.path}: {each.path.stat().st_size:,} bytes, predicted KLD {each.predicted_kld:.3g}, "
            f"measured {measures.kld_mean:.3g}{error}"
        )
        lines.append(f"  {each.verdict.summary()}")
        if each.offload is not None:
            lines.append(f"  {each.offload.summary()}")
    return "\n".join(lines)


def _work_folder(parent: Path, model: Model, text: Path, settings: Settings) -> Path:
    """A folder named by all that its contents depend on, so that nothing stale is ever taken up."""
    numbers = [settings.n_ctx, settings.calibration_chunks, settings.ranking_chunks, settings.feedback]
    key = json.dumps([__version__, str(library.folder()), fingerprint(model), file_sha256(text), *numbers])
    return parent / "gguf-golf-work" / hashlib.sha256(key.encode()).hexdigest()[:16]


def _base(model_path: Path, model: Model, work: Path, clock: "_Clock", settings: Settings) -> Path:
    """The model as one GGUF in its own precision."""
    base = _base_path(model_path, work)
    if base == model_path:
        return base
    clock.step("convert", f"converting {model_path} to {source_precision(model).upper()}")
    if not base.exists():
        convert(model_path, base, job=Job(threads=settings.threads, keep_lattice=False))
    return base


def _base_path(model_path: Path, work: Path) -> Path:
    return model_path if model_path.is_file() else work / "base.gguf"


@dataclass(frozen=True)
class _Texts:
    """The uses of the calibration text: how many of its first chunks calibrate, and files of other passages."""

    calibration_chunks: int
    ranking: Path
    control: Path


def _texts(base: Path, text: Path, work: Path, settings: Settings) -> _Texts:
    parts = split(
        base, text, settings.n_ctx, settings.calibration_chunks, settings.ranking_chunks + 3, settings.control_chunks
    )
    texts = _Texts(parts.calibration_chunks, work / "ranking.txt", work / "control.txt")
    texts.ranking.write_bytes(parts.ranking)
    texts.control.write_bytes(parts.control)
    return texts


def _calibrated(
    base: Path, text: Path, texts: _Texts, work: Path, clock: "_Clock", settings: Settings
) -> tuple[Path, Path | None]:
    """The imatrix and, for error feedback, the Hessians.

    Error feedback exploits correlations of the inputs, which differ from one kind of text to another: half of what it
    sees is the mixed text that comes with gguf-golf, which costs nothing on the user's own (docs/planning.md).
    """
    path, hessian = work / "imatrix.gguf", work / "hessian.gguf" if settings.feedback else None
    mixed = [text, CALIBRATION] if settings.feedback and text != CALIBRATION else [text]
    clock.step("calibrate", f"calibrating on {texts.calibration_chunks} chunks of {text.name}")
    if not path.exists():
        collect(
            base,
            mixed,
            n_ctx=settings.n_ctx,
            n_chunks=texts.calibration_chunks,
            threads=settings.threads,
            process_output=True,  # a head tied to its embedding is coded better under its inputs' importance
            out=path,
            hessian_path=hessian,
        )
    return path, hessian


def _ranked(
    base: Path, imatrix: Path, hessian: Path | None, texts: _Texts, work: Path, clock: "_Clock", settings: Settings
) -> Path:
    path = work / RANKED
    clock.step("rank", "measuring what each tensor costs")
    if not path.exists():
        measure(
            base,
            path,
            imatrix_path=imatrix,
            hessian_path=hessian,
            text_path=texts.ranking,
            n_ctx=settings.n_ctx,
            n_chunks=settings.ranking_chunks,
            threads=settings.threads,
        )
    return path


class _Clock:
    """Says which step runs and how long everything may still take: guesses, corrected by the steps that are done."""

    # Seconds for each billion multiplications of a forward pass, and for each million weights encoded, on two cores.
    FORWARD, ENCODE = 0.011, 0.25

    def __init__(self, model: Model, settings: Settings, n_files: int, say: Say) -> None:
        n, n_tensors = n_weights(model), sum(is_quantizable(tensor) for tensor in model.tensors)
        chunk, encode = self.FORWARD * n * settings.n_ctx / 1e9, self.ENCODE * n / 1e6
        self._expected = {
            "convert": n / 2e7,
            "calibrate": settings.calibration_chunks * chunk * (3 if settings.feedback else 1),
            "rank": n_tensors * (1.2 * settings.ranking_chunks * chunk + 0.3) + 1.3 * encode,
            "control": 3 * (encode * (1.5 if settings.feedback else 1) + settings.control_chunks * chunk),
            "tune": 0.0 if settings.tune is None else 4 * settings.tune.tokens * chunk / settings.n_ctx,
            "evaluate": settings.eval_chunks * chunk * (2 + n_files),  # the base twice, for the noise floor
        }
        each = ["control"] if settings.tune is None else ["control", "tune"]
        self._todo = ["convert", "calibrate", "rank", *each * n_files, "evaluate"]
        self._say, self._n = say, len(self._todo)
        self._spent = self._spent_expected = 0.0
        self._current: tuple[str, float] | None = None

    def step(self, name: str, words: str) -> None:
        """The next step begins, the one before is done."""
        self._finish()
        while self._todo[0] != name:
            self._todo.pop(0)
        self._say(f"[{self._n - len(self._todo) + 1}/{self._n}] {words} (about {_duration(self.left())} left in all)")
        self._todo.pop(0)
        self._current = (name, time.monotonic())

    def left(self) -> float:
        """Seconds that the steps to come may take."""
        return sum(self._expected[step] for step in self._todo) * self._pace()

    def done(self) -> None:
        self._finish()
        self._say(f"done in {_duration(self._spent)}")

    def _finish(self) -> None:
        if self._current is not None:
            name, started = self._current
            self._spent += time.monotonic() - started
            self._spent_expected += self._expected[name]
            self._current = None

    def _pace(self) -> float:
        """How much slower than guessed the steps so far were; steps found done count as nothing."""
        if self._spent < 2:
            return 1.0
        return self._spent / self._spent_expected


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
