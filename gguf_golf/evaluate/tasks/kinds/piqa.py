"""PIQA: which of two solutions reaches a goal. Its answers are in a file of their own."""

from dataclasses import dataclass
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.files import json_rows, read_utf8
from gguf_golf.evaluate.tasks.kind import TaskKind, TaskSettings, whole_answers
from gguf_golf.evaluate.tasks.question import Option, Question, question


@dataclass(frozen=True, kw_only=True)
class PiqaSettings(TaskSettings):
    """`labels` is the file of answers, 0 or 1 per line."""

    labels: Path


def _read(settings: PiqaSettings) -> list[Question]:
    labels = read_utf8(settings.labels).split()
    rows = list(json_rows(settings.file, {"goal": str, "sol1": str, "sol2": str}))
    if len(labels) != len(rows) or not set(labels) <= {"0", "1"}:
        raise InputError(
            f"{settings.labels}: {len(labels)} labels (each 0 or 1) for {len(rows)} questions of {settings.file}"
        )
    return [
        question(
            f"piqa-{number}",
            int(label),
            [Option(f"Question: {row['goal']}\nAnswer:", " " + row[key]) for key in ("sol1", "sol2")],
        )
        for label, (number, row) in zip(labels, rows, strict=True)
    ]


PIQA = TaskKind(
    "piqa",
    PiqaSettings,
    _read,
    primary="acc_norm",
    metrics=whole_answers,
    file="JSON lines `goal`, `sol1`, `sol2`; `labels`: the file of answers, 0 or 1 per line",
    compared="the two solutions",
)
