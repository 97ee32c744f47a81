"""GPQA from its authors' password-protected zip, or from a CSV.

The authors ask that the questions never appear in plain text where a crawler could find them. So the zip is read in
memory, nothing of it is written or printed, errors name records by number, results hold record ids and letters only.
"""

import csv
import io
import random
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.question import Option, Question, Variant

SUBSETS = ("diamond", "main", "extended")
RIGHT = "Correct Answer"
WRONG = tuple(f"Incorrect Answer {number}" for number in (1, 2, 3))
IDENTITY = "Record ID"
DOMAIN = "High-level domain"
COLUMNS = ("Question", RIGHT, *WRONG, IDENTITY)
LETTERS = "ABCD"
PASSWORD = re.compile(r"password:\s*`([^`]+)`", re.IGNORECASE)


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
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: neither a zip nor a UTF-8 CSV") from None
    missing = [column for column in COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise InputError(f"{path}: not GPQA: no column {', '.join(repr(column) for column in missing)}")
    incomplete = [number for number, row in enumerate(rows, 1) if not all(row[column] for column in COLUMNS)]
    if incomplete:
        raise InputError(f"{path}: record {incomplete[0]} is incomplete")
    return [
        Record(
            row[IDENTITY].strip(),
            (row.get(DOMAIN) or "").strip(),
            row["Question"].strip(),
            tuple(row[column].strip() for column in (RIGHT, *WRONG)),
        )
        for row in rows
    ]


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
    found = []
    for record in records:
        if form == "letters":
            variants = []
            for order in orders(record, permutations, seed):
                prompt = lettered(record, order, "({letter}) {answer}") + "\nAnswer:"
                variants.append(Variant(tuple(Option(prompt, f" ({letter})") for letter in LETTERS), order))
        else:
            shown = tuple(Option(f"Question: {record.stem}\nAnswer:", f" {answer}") for answer in record.answers)
            variants = [Variant(shown, tuple(range(len(shown))))]
        found.append(Question(record.id, 0, tuple(variants)))
    return found


def lettered(record: Record, order: tuple[int, ...], line: str) -> str:
    """The question with its answers in the given order, each as `line` says."""
    choices = [
        line.format(letter=letter, answer=record.answers[index]) for letter, index in zip(LETTERS, order, strict=True)
    ]
    return "\n".join([f"What is the correct answer to this question: {record.stem}", "Choices:", *choices])


def _unzipped(path: Path, subset: str, password: str | None) -> bytes:
    if subset not in SUBSETS:
        raise InputError(f"GPQA has no subset {subset!r}; there are {', '.join(SUBSETS)}")
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
    match = PASSWORD.search(readme.read_text(encoding="utf-8")) if readme.is_file() else None
    if match is None:
        raise InputError(f"{path}: give its password, or put GPQA's README.md, which has it, beside it")
    return match[1]
