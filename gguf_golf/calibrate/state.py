"""How far collecting an imatrix has come, kept next to its output while it is unfinished: NAME.state."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gguf_golf import files
from gguf_golf.calibrate.imatrix import ImatrixEntry

Entries = dict[str, ImatrixEntry]

_FIELDS = ("in_sum2", "counts", "peak")


class State:
    """The sums over the first chunks of a job (plain JSON data). Without a path nothing is kept."""

    def __init__(self, path: Path | None, job: Any) -> None:
        self._path, self._job = path, json.dumps(job, sort_keys=True)

    def load(self) -> tuple[int, Entries]:
        """(finished chunks, their sums) of an earlier run of the same job; (0, {}) without one."""
        if self._path is None or not self._path.is_file():
            return 0, {}
        try:
            with np.load(self._path) as stored:
                if str(stored["job"]) != self._job:
                    return 0, {}
                names = [str(name) for name in stored["names"]]
                entries = {
                    name: ImatrixEntry(*(stored[f"{i}.{field}"] for field in _FIELDS)) for i, name in enumerate(names)
                }
                return int(stored["chunks"]), entries
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return 0, {}  # a torn or foreign file: begin again

    def save(self, chunks: int, entries: Entries) -> None:
        """Keep the sums over `chunks` chunks. Raises InputError if they cannot be written."""
        if self._path is None:
            return
        arrays = {
            f"{i}.{field}": getattr(entry, field) for i, entry in enumerate(entries.values()) for field in _FIELDS
        }
        with files.replace_file(self._path) as partial, partial.open("wb") as file:
            np.savez(file, job=self._job, names=np.array(list(entries), np.str_), chunks=chunks, **arrays)

    def remove(self) -> None:
        """Forget it: the job is finished, or what belongs to the sums is about to change."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
