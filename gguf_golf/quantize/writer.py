"""Write a GGUF file of tensors that are made while it is written: streaming and resumable.

The file is written next to its destination as NAME.partial, with NAME.journal of the finished tensors, and renamed when
it is whole. An interrupted run resumes if the job is the same; tensors that the journal calls finished are checked.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.container.layout import Layout, lay_out
from gguf_golf.container.metadata import MARK
from gguf_golf.container.tensors import Stored
from gguf_golf.errors import InputError
from gguf_golf.journal import Journal, open_journal
from gguf_golf.models import MetadataField
from gguf_golf.progress import ProgressBar

Produce = Callable[[Sequence[Stored]], Iterator[tuple[Stored, Iterator[NDArray[np.uint8]]]]]

_BLOCK = 1 << 24  # bytes read at a time to check a finished tensor


def here(tensors: Sequence[Stored]) -> Iterator[tuple[Stored, Iterator[NDArray[np.uint8]]]]:
    """Each tensor with its parts, made by this process when they are asked for."""
    return ((tensor, tensor.parts()) for tensor in tensors)


@dataclass(frozen=True)
class Written:
    """What a finished file holds: bytes of the file, and of each tensor's data."""

    path: Path
    file_bytes: int
    tensor_bytes: dict[str, int]


def write(
    tensors: Sequence[Stored],
    out: Path,
    *,
    metadata: Sequence[MetadataField],
    made_from: Any,
    inputs: Sequence[Path | None] = (),
    produce: Produce = here,
    force: bool = False,
    progress: bool = True,
) -> Written:
    """Write `out` with these tensors and this metadata; `inputs` are the files that it must not replace.

    `produce` hands over each tensor with its parts, and is asked for the next when one is on disk.

    `made_from`, plain JSON data, says what the tensors are made of: an interrupted run with the same header and the
    same `made_from` resumes. Raises InputError for a file that cannot be written, as `files.check_output` does, and
    whatever reading the tensors' parts raises.
    """
    files.check_output(out, inputs, mark=MARK, force=force)
    layout = lay_out(tensors, metadata)
    target = Path(os.path.realpath(out))
    journal_path, partial = target.with_name(target.name + ".journal"), files.partial_path(target)
    job = {"header": hashlib.sha256(layout.header).hexdigest(), "made_from": made_from}
    try:
        with files.locked(out):
            if not _begins_with(partial, layout):
                journal_path.unlink(missing_ok=True)
            with open_journal(journal_path, job) as journal:
                with files.replace_file(out, inputs, mark=MARK, force=force, resumable=True) as partial:
                    _fill(partial, layout, journal, tensors, produce, progress=progress)
                journal.remove()
    except InputError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise InputError(
            f"{error}: {out} takes {layout.file_bytes / 1e6:.1f} MB; free some space or name another place, "
            "then run the same command again: finished tensors are kept"
        ) from error
    except KeyboardInterrupt:
        click.echo("interrupted: run the same command again to resume; finished tensors are kept", err=True)
        raise
    return Written(out, layout.file_bytes, layout.sizes)


def _begins_with(partial: Path, layout: Layout) -> bool:
    """Whether a partial file is there that has the layout's header and size."""
    if partial.is_symlink() or not partial.is_file() or partial.stat().st_size != layout.file_bytes:
        return False
    with partial.open("rb") as file:
        return file.read(len(layout.header)) == layout.header


def _fill(
    partial: Path,
    layout: Layout,
    journal: Journal,
    tensors: Sequence[Stored],
    produce: Produce,
    *,
    progress: bool,
) -> None:
    """Write the header and every tensor that is not in the journal. A record is a tensor's name and its CRC-32."""
    with partial.open("r+b" if journal.records else "w+b") as file:
        if not journal.records:
            file.write(layout.header)
            files.allocate(file, layout.file_bytes)
        recorded = {name: checksum for name, checksum in journal.records if name in layout.offsets}
        done = {
            name
            for name, checksum in recorded.items()
            if _stored_checksum(file.fileno(), layout.offsets[name], layout.sizes[name]) == checksum
        }
        todo = [tensor for tensor in tensors if tensor.name not in done]
        total, left = (sum(tensor.n_bytes for tensor in some) for some in (tensors, todo))
        bar = ProgressBar(
            total=total, initial=total - left, unit="B", unit_scale=True, desc="quantizing", disable=not progress
        )
        with bar:
            for tensor, parts in produce(todo):
                bar.set_postfix_str(f"{tensor.name} {tensor.type.name}", refresh=False)
                file.seek(layout.offsets[tensor.name])
                checksum = 0
                for part in parts:
                    file.write(part.data)
                    checksum = zlib.crc32(part.data, checksum)
                    bar.update(part.nbytes)
                # the data reaches the disk before the note that it is there
                file.flush()
                os.fsync(file.fileno())
                journal.add([tensor.name, checksum])


def _stored_checksum(descriptor: int, offset: int, size: int) -> int:
    checksum, end = 0, offset + size
    while offset < end:
        block = os.pread(descriptor, min(_BLOCK, end - offset), offset)
        if not block:
            break
        checksum = zlib.crc32(block, checksum)
        offset += len(block)
    return checksum
