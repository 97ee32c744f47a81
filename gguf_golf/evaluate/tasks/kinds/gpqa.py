"""GPQA: questions that only experts of a field can answer, from the authors' password-protected zip, or from a CSV.

The authors ask that the questions never appear in plain text where a crawler could find them. So the zip is read in
memory, nothing of it is written or printed, errors name records by number, results hold record ids and letters only.
"""

import csv
import io
import random
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError, did_you_mean
from gguf_golf.evaluate.tasks.files import read_utf8
from gguf_golf.evaluate.tasks.generative import GenerationSettings
from gguf_golf.evaluate.tasks.kind import TaskKind, TaskSettings, letters, whole_answers
from gguf_golf.evaluate.tasks.question import Option, Question, Variant, same_answers

SUBSETS = ("diamond", "main", "extended")
RIGHT = "Correct Answer"
WRONG = tuple(f"Incorrect Answer {number}" for number in (1, 2, 3))
IDENTITY = "Record ID"
DOMAIN = "High-level domain"
COLUMNS = ("Question", RIGHT, *WRONG, IDENTITY)
LETTERS = "ABCD"
MODES = ("loglikelihood", "generative")
FORMS = ("letters", "answers")
INSTRUCTION = (
    "Answer the following multiple-choice question. Think step by step before you answer. End with a line of the form "
    '"Answer: X", where X is one of A, B, C and D.\n\n'
)
PASSWORD = re.compile(r"password:\s*`([^`]+)`", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class GpqaSettings(TaskSettings):
    """`mode` "loglikelihood" scores letters (`form` "letters", all answers shown in `permutations` orders) or whole
    answers that are not shown ("answers"); "generative" lets the model write, `repeats` times per question.
    """

    subset: str = "diamond"
    password: str | None = field(default=None, repr=False)
    mode: str = "loglikelihood"
    form: str = "letters"
    permutations: int = 4
    repeats: int = 1
    max_tokens: int = 1024
    concurrency: int = 4
    temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (
            ("subset", self.subset, SUBSETS),
            ("mode", self.mode, MODES),
            ("form", self.form, FORMS),
        ):
            if value not in known:
                raise InputError(f"task {self.name}: GPQA has no {name} {value!r}{did_you_mean(value, known)}")
        self._at_least(1, "permutations", "repeats", "max_tokens", "concurrency")
        self._at_least(0, "temperature")

    def generation(self) -> GenerationSettings | None:
        if self.mode != "generative":
            return None
        return GenerationSettings(self.max_tokens, self.concurrency, self.temperature, self.seed)

    def own_json(self) -> dict[str, Any]:
        generative = ("subset", "repeats", "max_tokens", "concurrency", "temperature")
        names = generative if self.mode == "generative" else ("subset", "form", "permutations")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Record:
    """One question; answer 0 is the right one. Its texts stay out of every representation."""

    id: str
    domain: str
    stem: str = field(repr=False)
    answers: tuple[str, ...] = field(repr=False)


def read_records(path: Path, subset: str = "diamond", password: str | None = None) -> list[Record]:
    """The records of `gpqa_<subset>.csv` in a zip, or of a CSV. Without a password, the README beside the zip is asked.

    Raises InputError for an absent file, a wrong password, an unknown subset, or missing columns.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; GPQA is at https://github.com/idavidrein/gpqa")
    data = _unzipped(path, subset, password) if zipfile.is_zipfile(path) else path.read_bytes()
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: neither a zip nor a UTF-8 CSV") from None
    missing = [column for column in COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise InputError(f"{path}: not GPQA: no column {', '.join(repr(column) for column in missing)}")
    incomplete = [number for number, row in enumerate(rows, 1) if not all(row[column] for column in COLUMNS)]
    if incomplete:
        raise InputError(f"{path}: record {incomplete[0]} is incomplete")
    records = [
        Record(
            row[IDENTITY].strip(),
            (row.get(DOMAIN) or "").strip(),
            row["Question"].strip(),
            tuple(row[column].strip() for column in (RIGHT, *WRONG)),
        )
        for row in rows
    ]
    if twice := [identity for identity, n in Counter(record.id for record in records).items() if n > 1]:
        raise InputError(f"{path}: two records have the id {twice[0]}; results could not tell them apart")
    return records


def orders(record: Record, permutations: int, seed: int) -> list[tuple[int, ...]]:
    """`permutations` orders of the four answers, without repetition up to 24, from the seed and the id."""
    generator = random.Random(f"{seed} {record.id}")
    found: list[tuple[int, ...]] = []
    while len(found) < permutations:
        order = tuple(generator.sample(range(len(record.answers)), len(record.answers)))
        if order not in found or len(found) >= 24:
            found.append(order)
    return found


def questions(records: Sequence[Record], form: str, permutations: int, seed: int) -> list[Question]:
    """Log-likelihood questions. Form "letters" shows all answers and scores letters, "answers" scores whole texts."""
    if form == "letters":
        return [_shown(record, permutations, seed, "({letter}) {answer}", "", "\nAnswer:") for record in records]
    found = []
    for record in records:
        options = tuple(Option(f"Question: {record.stem}\nAnswer:", f" {answer}") for answer in record.answers)
        variant = Variant(options, tuple(range(len(options))))
        found.append(Question(record.id, 0, (variant,), same_answers(record.answers, 0)))
    return found


def prompts(records: Sequence[Record], repeats: int, seed: int) -> list[Question]:
    """Questions to generate an answer to: each repeat shows the answers in an order of its own."""
    return [_shown(record, repeats, seed, "{letter}) {answer}", INSTRUCTION, "") for record in records]


def _shown(record: Record, n_orders: int, seed: int, line: str, before: str, after: str) -> Question:
    variants = []
    for order in orders(record, n_orders, seed):
        prompt = before + lettered(record, order, line) + after
        variants.append(Variant(tuple(Option(prompt, f" ({letter})") for letter in LETTERS), order))
    return Question(record.id, 0, tuple(variants), same_answers(record.answers, 0))


def lettered(record: Record, order: tuple[int, ...], line: str) -> str:
    """The question with its answers in the given order, each as `line` says."""
    choices = [
        line.format(letter=letter, answer=record.answers[index]) for letter, index in zip(LETTERS, order, strict=True)
    ]
    return "\n".join([f"What is the correct answer to this question: {record.stem}", "Choices:", *choices])


def _unzipped(path: Path, subset: str, password: str | None) -> bytes:
    secret = password or _readme_password(path)
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith(f"gpqa_{subset}.csv")), None)
        if name is None:
            raise InputError(f"{path}: holds no gpqa_{subset}.csv")
        try:
            return archive.read(name, pwd=secret.encode())
        except (RuntimeError, zipfile.BadZipFile, zlib.error):
            raise InputError(f"{path}: the password is wrong; it is in the README of GPQA") from None


def _readme_password(path: Path) -> str:
    readme = path.with_name("README.md")
    match = PASSWORD.search(read_utf8(readme)) if readme.is_file() else None
    if match is None:
        raise InputError(f"{path}: give its password, or put GPQA's README.md, which has it, beside it")
    return match[1]


def _read(settings: GpqaSettings) -> list[Question]:
    records = read_records(settings.file, settings.subset, settings.password)
    if settings.generation() is not None:
        return prompts(records, settings.repeats, settings.seed)
    return questions(records, settings.form, settings.permutations, settings.seed)


def _metrics(settings: GpqaSettings) -> tuple[str, ...]:
    whole = settings.form == "answers" and settings.generation() is None
    return whole_answers(settings) if whole else letters(settings)


GPQA = TaskKind(
    "gpqa",
    GpqaSettings,
    _read,
    primary="acc_norm",
    metrics=_metrics,
    file="the authors' zip (its password is looked up in the README.md beside it, which `gguf-golf data fetch gpqa` "
    "brings along, or given as `password`), or a CSV of theirs; `subset` diamond, main or extended",
    compared="letters or whole answers, see below",
)
