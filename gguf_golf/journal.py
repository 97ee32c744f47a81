"""A journal of finished work: JSON lines under a head line that names the job, so that an interrupted run resumes.

What a record speaks of has to be on disk before `add` is called: then no crash leaves a claim without its data. A run
of another job begins an empty journal, on disk before the caller touches the data of the old one.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from gguf_golf import files

_VERSION = 1


@contextmanager
def open_journal(path: Path, job: Any, *, wait: bool = False) -> Iterator["Journal"]:
    """The journal at `path`, locked; its records are those of earlier runs of the same `job` (plain JSON data).

    Lines that a crash tore or that cannot be read are cut. Raises InputError if another process has it open, unless
    `wait`, and if it cannot be written.
    """
    head = json.dumps({"journal": _VERSION, "job": job}, sort_keys=True)
    with files.locked(path, wait=wait):
        records, damaged = _read(path, head)
        if damaged:
            files.write_text(path, "".join(line + "\n" for line in [head, *map(json.dumps, records)]))
        with files.named_errors(path):
            file = path.open("ab", buffering=0)
        with file:
            yield Journal(path, records, file)


class Journal:
    """An open journal; `records` holds what earlier runs and this one have finished."""

    def __init__(self, path: Path, records: list[Any], file: BinaryIO) -> None:
        self.path = path
        self.records = records
        self._file = file

    def add(self, record: Any) -> None:
        """Append one record, plain JSON data; it is on disk when this returns. Raises InputError if it cannot be."""
        line = json.dumps(record).encode() + b"\n"
        end = self._file.seek(0, 2)
        with files.named_errors(self.path):
            try:
                written = self._file.write(line)
                if written != len(line):
                    written += self._file.write(line[written:])  # raises the reason
                files.sync(self.path)
            except BaseException:
                self._file.truncate(end)
                raise
        self.records.append(record)

    def remove(self) -> None:
        """Delete the journal: the work is complete and has its final name."""
        self.path.unlink(missing_ok=True)


def _read(path: Path, head: str) -> tuple[list[Any], bool]:
    """(readable records of this job, whether the file has to be rewritten)."""
    try:
        first, *lines, tail = path.read_bytes().split(b"\n")
    except (FileNotFoundError, ValueError):
        return [], True
    if first != head.encode():
        return [], True
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return records, bool(tail) or len(records) < len(lines)
