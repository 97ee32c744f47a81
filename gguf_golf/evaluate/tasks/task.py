"""One task of a suite: its settings, running it for any number of models, and comparing each with the base."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from gguf_golf.errors import InputError
from gguf_golf.evaluate import statistics
from gguf_golf.evaluate.tasks import generative, gpqa, likelihood
from gguf_golf.evaluate.tasks.likelihood import Answers
from gguf_golf.evaluate.tasks.question import Question, sample
from gguf_golf.evaluate.tasks.readers import LETTERS, read_questions
from gguf_golf.models.hashing import file_sha256

# raise it whenever prompts or counting change
TASKS_VERSION = 1
PRIMARY = {"hellaswag": "acc_norm", "arc": "acc_norm", "piqa": "acc_norm"}


@dataclass(frozen=True)
class Task:
    """Settings of a task. `file` is a file or folder; `extra` PIQA's labels or MMLU's examples.

    For GPQA: `subset`, `password`, `mode` ("loglikelihood" or "generative"), `form` ("letters" or "answers"),
    `permutations` of the options; generative also `repeats`, `max_tokens`, `concurrency`, `temperature`.
    """

    name: str
    kind: str
    file: Path
    extra: Path | None = None
    limit: int | None = None
    seed: int = 1
    shots: int = 5
    subset: str = "diamond"
    password: str | None = field(default=None, repr=False)
    mode: str = "loglikelihood"
    form: str = "letters"
    permutations: int = 4
    repeats: int = 1
    max_tokens: int = 1024
    concurrency: int = 4
    temperature: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The settings that matter for this kind and the data's hash, without folders and password."""
        shared = ("name", "kind", "limit", "seed", "mode")
        own = {
            "mmlu": ("shots",),
            "gpqa": ("subset", "repeats", "max_tokens", "concurrency", "temperature")
            if self.mode == "generative"
            else ("subset", "form", "permutations"),
        }.get(self.kind, ())
        settings = {name: getattr(self, name) for name in (*shared, *own)}
        return {**settings, "file": self.file.name, "sha256": _data_sha256(self)}


@dataclass
class Metric:
    """A score with its 95% interval, and how it compares with the base's (None for the base itself)."""

    score: float
    low: float
    high: float
    above_chance: bool
    mcnemar_p: float | None = None
    lost: list[str] | None = None
    gained: list[str] | None = None
    retained: float | None = None
    retained_low: float | None = None
    retained_high: float | None = None


@dataclass
class TaskResult:
    """One model on one task: see docs/evaluation.md."""

    kind: str
    mode: str
    n: int
    chance: float
    primary: str
    metrics: dict[str, Metric]
    answers: dict[str, str | None]
    correct: dict[str, bool]


class TaskRun:
    """A task with its questions read, ready for models. Raises InputError where the data are not what the task says."""

    def __init__(self, task: Task, cache: Path, threads: int) -> None:
        self.task = task
        self._threads = threads
        self._records: list[gpqa.Record] = []
        self._questions: list[Question] = []
        if task.mode not in ("loglikelihood", "generative") or (task.mode == "generative" and task.kind != "gpqa"):
            raise InputError(f"task {task.name}: there is no mode {task.mode!r} for {task.kind}")
        if task.kind == "gpqa":
            if task.form not in ("letters", "answers"):
                raise InputError(f"task {task.name}: `form` is letters or answers, not {task.form!r}")
            self._records = sample(gpqa.read_records(task.file, task.subset, task.password), task.limit, task.seed)
            self._questions = gpqa.questions(self._records, task.form, task.permutations, task.seed)
        else:
            everything = read_questions(task.kind, task.file, extra=task.extra, shots=task.shots)
            self._questions = sample(everything, task.limit, task.seed)
        key = json.dumps({"version": TASKS_VERSION, **task.to_json()}, sort_keys=True)
        self._folder = cache / "tasks" / hashlib.sha256(key.encode()).hexdigest()[:20]
        self._folder.mkdir(parents=True, exist_ok=True)

    def ask(self, model: Path) -> Answers:
        """What a model answers; finished questions are kept in the cache."""
        task = self.task
        kept = self._folder / f"{file_sha256(model)}.jsonl"
        with FileLock(f"{kept}.lock"):
            if task.mode == "generative":
                budget = generative.Budget(task.max_tokens, task.repeats, task.concurrency, task.temperature)
                return generative.ask(model, self._records, kept, budget, task.seed, self._threads, task.name)
            return likelihood.ask(model, self._questions, kept, self._threads, task.name)

    def result(self, answers: Answers, base: Answers | None) -> TaskResult:
        """Scores with intervals; compared with the base's answers unless this is the base."""
        task = self.task
        n = len(answers.ids)
        options = [question.n_options for question in self._questions]
        chance = 0.0 if max(options) == 1 else sum(1 / count for count in options) / n
        letters_only = task.kind in ("mmlu", "winogrande") or (task.kind == "gpqa" and task.form == "letters")
        names = ["acc"] if letters_only or task.mode == "generative" else list(answers.scores)
        primary = PRIMARY.get(task.kind, "acc_norm" if task.kind == "gpqa" and "acc_norm" in names else "acc")
        return TaskResult(
            kind="completion" if max(options) == 1 else "gpqa" if task.kind == "gpqa" else "choice",
            mode=task.mode,
            n=n,
            chance=chance,
            primary=primary,
            metrics={name: _metric(answers, base, name, chance) for name in names},
            answers={
                identity: None if choice is None else LETTERS[choice]
                for identity, choice in zip(answers.ids, answers.chosen[primary], strict=True)
            },
            correct=dict(zip(answers.ids, answers.right[primary], strict=True)),
        )


def run_task(task: Task, base: Path, quants: Sequence[Path], cache: Path, threads: int) -> list[TaskResult]:
    """Results of the base, then of each model."""
    run = TaskRun(task, cache, threads)
    base_answers = run.ask(base)
    return [run.result(base_answers, None), *(run.result(run.ask(quant), base_answers) for quant in quants)]


def _metric(answers: Answers, base: Answers | None, name: str, chance: float) -> Metric:
    scores = answers.scores[name]
    low, high = statistics.wilson(sum(scores), len(scores))
    metric = Metric(sum(scores) / len(scores), low, high, low > chance)
    if base is not None:
        pairs = list(zip(answers.ids, answers.right[name], base.right[name], strict=True))
        metric.lost = [identity for identity, ours, theirs in pairs if theirs and not ours]
        metric.gained = [identity for identity, ours, theirs in pairs if ours and not theirs]
        metric.mcnemar_p = statistics.mcnemar(len(metric.lost), len(metric.gained))
        metric.retained, metric.retained_low, metric.retained_high = statistics.retained(
            scores, base.scores[name], chance
        )
    return metric


def _data_sha256(task: Task) -> str:
    """Hash of every data file of a task, in the order of their names."""
    digest = hashlib.sha256()
    for path in (task.file, task.extra):
        if path is not None:
            for file in sorted(path.glob("*.csv")) if path.is_dir() else [path]:
                digest.update(bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()
