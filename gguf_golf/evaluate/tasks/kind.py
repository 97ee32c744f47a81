"""A kind of task: which settings it takes, how its questions are read, how its answers are scored.

A new kind is one file in `kinds/` and one row in `kinds/__init__.py`; suites, results and the documentation follow.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.generative import GenerationSettings
from gguf_golf.evaluate.tasks.question import Question, sample
from gguf_golf.models.hashing import file_sha256


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What every task takes: its data, a file or a folder, and `limit` questions drawn by `seed`."""

    name: str
    file: Path
    limit: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        self._at_least(1, "limit")

    def generation(self) -> GenerationSettings | None:
        """How answers are generated; None where log-likelihoods are compared."""
        return None

    def own_json(self) -> dict[str, Any]:
        """The settings of this kind alone that change a result: neither files nor secrets (fields without repr)."""
        shared = {field.name for field in fields(TaskSettings)}
        own = [field.name for field in fields(self) if field.name not in shared and field.repr]
        return {name: value for name in own if not isinstance(value := getattr(self, name), Path)}

    def data(self) -> list[Path]:
        """Every data file: `file` first, then the other paths, folders as their CSV files by name."""
        paths = [value for field in fields(self) if isinstance(value := getattr(self, field.name), Path)]
        return [file for path in paths for file in (sorted(path.glob("*.csv")) if path.is_dir() else [path])]

    def _at_least(self, least: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"task {self.name}: `{name}` is {value}; it must be {least} or more")


S = TypeVar("S", bound=TaskSettings)


@dataclass(frozen=True)
class TaskKind(Generic[S]):
    """A kind of task. `read` raises InputError, naming file and line, where the data are not of this kind.

    `metrics` names the scores that suit the settings, and `primary` the one to show first (`acc` where it is not among
    them). `file` and `compared` are its row in the documentation.
    """

    name: str
    settings: type[S]
    read: Callable[[S], list[Question]]
    primary: str
    metrics: Callable[[S], tuple[str, ...]]
    file: str
    compared: str

    def questions(self, settings: S) -> list[Question]:
        """The questions of a task. Raises InputError for absent or empty data, or data of another kind."""
        for path in settings.data() or [settings.file]:
            if not path.exists():
                raise InputError(f"{path}: no such file")
        found = self.read(settings)
        if not found:
            raise InputError(f"{settings.file}: holds no questions")
        return sample(found, settings.limit, settings.seed)

    def primary_metric(self, settings: S) -> str:
        return self.primary if self.primary in self.metrics(settings) else "acc"


def letters(_settings: TaskSettings) -> tuple[str, ...]:
    """Metrics of answers that are letters, or all of one length, or completions."""
    return ("acc",)


def whole_answers(_settings: TaskSettings) -> tuple[str, ...]:
    """Metrics of answers of different lengths."""
    return ("acc", "acc_norm", "acc_token")


@dataclass(frozen=True)
class Task:
    """A kind with its settings, as a suite names it."""

    kind: TaskKind[Any]
    settings: TaskSettings

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def mode(self) -> str:
        return "loglikelihood" if self.settings.generation() is None else "generative"

    def to_json(self) -> dict[str, Any]:
        """The settings that matter and the data's hash, without folders and passwords."""
        settings = self.settings
        digest = hashlib.sha256()
        for file in settings.data():
            digest.update(bytes.fromhex(file_sha256(file)))
        return {
            "name": settings.name,
            "kind": self.kind.name,
            "limit": settings.limit,
            "seed": settings.seed,
            "mode": self.mode,
            **settings.own_json(),
            "file": settings.file.name,
            "sha256": digest.hexdigest(),
        }
