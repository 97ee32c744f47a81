"""Write a GGUF file of tensors that are made while it is written: streaming and resumable.

The file is written next to its destination as NAME.partial, with a journal of the finished tensors, and renamed when
it is whole. An interrupted run resumes if the job is the same.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gguf_golf.container.layout import Layout, lay_out
from gguf_golf.container.tensors import Stored
from gguf_golf.errors import InputError
from gguf_golf.models import MetadataField
from gguf_golf.progress import ProgressBar


@dataclass(frozen=True)
class Written:
    """What a finished file holds: bytes of the file, and of each tensor's data."""

    path: Path
    file_bytes: int
    tensor_bytes: dict[str, int]


def write(
    tensors: Sequence[Stored], out: Path, *, metadata: Sequence[MetadataField], key: str, progress: bool = True
) -> Written:
    """Write `out` with these tensors and this metadata. `key` names what the tensors are made from: an interrupted run
    with the same header and key resumes.

    Raises InputError for a file that cannot be written, and whatever reading the tensors' parts raises.
    """
    layout = lay_out(tensors, metadata)
    job = hashlib.sha256(layout.header + key.encode()).hexdigest()
    partial, journal = out.with_name(out.name + ".partial"), out.with_name(out.name + ".journal")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _PartialFile(partial, journal, layout, job) as target:
            _write_tensors(tensors, target, progress=progress)
        os.replace(partial, out)
        journal.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {out} ({layout.file_bytes / 1e6:.1f} MB): {error.strerror}; "
            f"free some space or name another place, then run the same command again: finished tensors are kept"
        ) from error
    return Written(out, layout.file_bytes, layout.sizes)


class _PartialFile:
    """The file under construction and its journal of finished tensors."""

    def __init__(self, path: Path, journal: Path, layout: Layout, job: str) -> None:
        self.layout = layout
        self.done: set[str] = set()
        self._path, self._journal, self._job = path, journal, job

    def __enter__(self) -> "_PartialFile":
        if self._resumable():
            lines = self._journal.read_text(encoding="utf-8").splitlines()
            self.done = {json.loads(line) for line in lines[1:] if line.endswith('"')}
            self._file: BinaryIO = self._path.open("r+b")
        else:
            self._file = self._path.open("w+b")
            self._file.write(self.layout.header)
            self._file.truncate(self.layout.file_bytes)
            self._journal.write_text(self._job + "\n", encoding="utf-8")
        self._log = self._journal.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        self._file.close()

    def _resumable(self) -> bool:
        if not (self._path.is_file() and self._journal.is_file()):
            return False
        text = self._journal.read_text(encoding="utf-8")
        return text.startswith(self._job + "\n") and self._path.stat().st_size == self.layout.file_bytes

    def seek(self, name: str) -> None:
        """Go to where this tensor's data starts."""
        self._file.seek(self.layout.offsets[name])

    def write(self, data: NDArray[np.uint8]) -> None:
        """Write the next bytes of the current tensor."""
        self._file.write(data.data)

    def finish(self, name: str) -> None:
        """Note that a tensor is whole; its bytes reach the disk before the note does."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._log.write(json.dumps(name) + "\n")
        self._log.flush()
        self.done.add(name)


def _write_tensors(tensors: Sequence[Stored], target: _PartialFile, *, progress: bool) -> None:
    todo = [tensor for tensor in tensors if tensor.name not in target.done]
    total, left = (sum(tensor.n_bytes for tensor in some) for some in (tensors, todo))
    bar = ProgressBar(
        total=total, initial=total - left, unit="B", unit_scale=True, desc="quantizing", disable=not progress
    )
    with bar:
        for tensor in todo:
            bar.set_postfix_str(f"{tensor.name} {tensor.type.name}", refresh=False)
            target.seek(tensor.name)
            for part in tensor.parts():
                target.write(part)
                bar.update(part.nbytes)
            target.finish(tensor.name)
