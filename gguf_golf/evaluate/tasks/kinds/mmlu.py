"""MMLU: exam questions with four choices, answered by a letter, after examples of the same subject."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.files import csv_rows
from gguf_golf.evaluate.tasks.kind import TaskKind, TaskSettings, letters
from gguf_golf.evaluate.tasks.question import LETTERS, Option, Question, question


@dataclass(frozen=True, kw_only=True)
class MmluSettings(TaskSettings):
    """`shots` questions of `examples` (a file, or a folder of `<subject>_dev.csv`) are shown with their answers."""

    examples: Path | None = None
    shots: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "shots")
        if self.shots and self.examples is None:
            raise InputError(
                f"task {self.name}: {self.shots} shots need `examples`, MMLU's folder dev; set `shots = 0` for none"
            )


def _read(settings: MmluSettings) -> list[Question]:
    path = settings.file
    found = []
    for file in sorted(path.glob("*.csv")) if path.is_dir() else [path]:
        subject = file.stem.removesuffix("_test").removesuffix("_val").removesuffix("_dev")
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        head += _examples(settings, subject)
        for number, (stem, choices, right) in enumerate(_rows(file)):
            prompt = head + _lettered(stem, choices)
            options = [Option(prompt, f" {letter}") for letter in LETTERS[: len(choices)]]
            found.append(question(f"{subject}-{number}", right, options, choices))
    return found


def _examples(settings: MmluSettings, subject: str) -> str:
    if settings.examples is None or not settings.shots:
        return ""
    file = settings.examples / f"{subject}_dev.csv" if settings.examples.is_dir() else settings.examples
    if not file.is_file():
        raise InputError(f"{file}: no such file; MMLU's examples of {subject} are expected there")
    rows = list(_rows(file))
    if len(rows) < settings.shots:
        raise InputError(f"{file}: {len(rows)} examples, not {settings.shots}; lower `shots`")
    return "".join(
        f"{_lettered(stem, choices)} {LETTERS[right]}\n\n" for stem, choices, right in rows[: settings.shots]
    )


def _rows(path: Path) -> Iterator[tuple[str, list[str], int]]:
    for number, cells in csv_rows(path):
        if number == 1 and cells and cells[-1].strip().lower() == "answer":
            continue
        if len(cells) != 6:
            raise InputError(f"{path}, row {number}: {len(cells)} columns, not question, four choices and answer")
        answer = cells[5].strip()
        right = "ABCD".find(answer) if answer in "ABCD" and answer else "0123".find(answer)
        if len(answer) != 1 or right < 0:
            raise InputError(f"{path}, row {number}: the answer {answer[:20]!r} is none of A-D or 0-3")
        yield cells[0], cells[1:5], right


def _lettered(stem: str, choices: list[str]) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([stem.strip(), *lines, "Answer:"])


MMLU = TaskKind(
    "mmlu",
    MmluSettings,
    _read,
    primary="acc",
    metrics=letters,
    file="a CSV, or a folder of them, of question, four choices, answer (A-D or 0-3); `examples`: the same, of which "
    "`shots` (5) are shown first",
    compared="the letters",
)
