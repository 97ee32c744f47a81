"""One task of a suite: running it for any number of models, and comparing each with the base."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from gguf_golf.evaluate import significance
from gguf_golf.evaluate.tasks import generative, likelihood
from gguf_golf.evaluate.tasks.answers import Answers
from gguf_golf.evaluate.tasks.kind import Task
from gguf_golf.evaluate.tasks.question import LETTERS
from gguf_golf.models.hashing import file_sha256

# raise it whenever prompts or counting change.
# 2: special tokens in a prompt are parsed, letters are found differently, identical answers count alike
TASKS_VERSION = 2


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
    """One model on one task: see docs/evaluation.md. `right_twice`: questions that list the right answer twice."""

    kind: str
    mode: str
    n: int
    chance: float
    primary: str
    metrics: dict[str, Metric]
    answers: dict[str, str | None]
    correct: dict[str, bool]
    right_twice: list[str] = field(default_factory=list)


class TaskRun:
    """A task with its questions read, ready for models. Raises InputError where the data are not what the task says."""

    def __init__(self, task: Task, cache: Path, threads: int) -> None:
        self.task = task
        self._threads = threads
        self._questions = task.kind.questions(task.settings)
        self._job = {"version": TASKS_VERSION, **task.to_json()}
        self._cache = cache / "tasks"

    def ask(self, model: Path) -> Answers:
        """What a model answers; finished questions are in the cache."""
        job = {**self._job, "model": file_sha256(model)}
        key = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:20]
        journal, name = self._cache / f"{key}.jsonl", self.task.name
        settings = self.task.settings.generation()
        if settings is None:
            return likelihood.ask(model, self._questions, journal, job, self._threads, name)
        return generative.ask(model, self._questions, journal, job, settings, self._threads, name)

    def result(self, answers: Answers, base: Answers | None) -> TaskResult:
        """Scores with intervals; compared with the base's answers unless this is the base."""
        kind, settings, questions = self.task.kind, self.task.settings, self._questions
        n = len(questions)
        chance = sum(question.chance for question in questions) / n
        completion = max(question.n_options for question in questions) == 1
        primary = kind.primary_metric(settings)
        return TaskResult(
            kind="completion" if completion else "gpqa" if kind.name == "gpqa" else "choice",
            mode=self.task.mode,
            n=n,
            chance=chance,
            primary=primary,
            metrics={name: _metric(answers, base, name, chance) for name in kind.metrics(settings)},
            answers={
                identity: None if choice is None else LETTERS[choice]
                for identity, choice in zip(answers.ids, answers.chosen[primary], strict=True)
            },
            correct=dict(zip(answers.ids, answers.right[primary], strict=True)),
            right_twice=[question.id for question in questions if question.twins],
        )


def _metric(answers: Answers, base: Answers | None, name: str, chance: float) -> Metric:
    scores = answers.scores[name]
    low, high = significance.wilson(sum(scores), len(scores))
    metric = Metric(sum(scores) / len(scores), low, high, low > chance)
    if base is not None:
        pairs = list(zip(answers.ids, answers.right[name], base.right[name], strict=True))
        metric.lost = [identity for identity, ours, theirs in pairs if theirs and not ours]
        metric.gained = [identity for identity, ours, theirs in pairs if ours and not theirs]
        metric.mcnemar_p = significance.mcnemar(len(metric.lost), len(metric.gained))
        metric.retained, metric.retained_low, metric.retained_high = significance.retained(
            scores, base.scores[name], chance
        )
    return metric
