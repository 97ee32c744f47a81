"""Write a file whole or not at all: under a lock, synced to disk, and never over an input or somebody else's file.

    check_output(out, [model], mark=MARK)                  # before hours of work
    with replace_file(out, [model], mark=MARK) as partial:
        partial.write_bytes(...)                           # OUT.partial, renamed to OUT when the block ends

A `mark` is bytes that every file of one kind contains near its start, such as its JSON schema's name. An existing file
without it was not written by this tool, or is of another kind, and is only replaced with `force`.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
from filelock import FileLock, Timeout

from gguf_golf.errors import InputError

PART_NAME = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")
"""What llama.cpp calls the parts of a split GGUF."""

_MARK_WITHIN = 64 << 20  # bytes: our keys of a GGUF follow its tokenizer
_BLOCK = 1 << 20


@contextmanager
def replace_file(
    path: Path,
    inputs: Iterable[Path | None] = (),
    *,
    mark: bytes = b"",
    force: bool = False,
    resumable: bool = False,
) -> Iterator[Path]:
    """Yield the path to write to, `path` + ".partial"; it takes the name `path` when the block ends without an error.

    After an error or an interrupt the partial file is deleted, or kept if `resumable`: the next run then finds it.
    Links are followed. Raises InputError as `check_output` and `locked` do, and for a disk that is full or read-only.
    """
    check_output(path, inputs, mark=mark, force=force)
    target = Path(os.path.realpath(path))
    partial = partial_path(target)
    with named_errors(path, partial):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not resumable or partial.is_symlink():
                partial.unlink(missing_ok=True)
            try:
                yield partial
                sync(partial)
                os.replace(partial, target)
                sync(target.parent)
            except BaseException:
                if not resumable:
                    partial.unlink(missing_ok=True)
                raise


def write_text(
    path: Path, text: str, inputs: Iterable[Path | None] = (), *, mark: bytes = b"", force: bool = False
) -> None:
    """Write `text` as UTF-8, as `replace_file` does."""
    with replace_file(path, inputs, mark=mark, force=force) as partial:
        partial.write_text(text, encoding="utf-8")


def check_output(path: Path, inputs: Iterable[Path | None] = (), *, mark: bytes = b"", force: bool = False) -> None:
    """Raise InputError unless `path` can be written and nothing is lost by it; to be called before any long work.

    It must not be a folder or a device, nor one of the `inputs` (by whatever name or link; files inside a folder and
    the other parts of a split GGUF count, None does not), and an existing file must contain `mark`, unless `force`.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path} is a folder: name a file in it to write to")
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is not a regular file: name another output")
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f"{path} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no permission to write to {folder}")
    ours = bool(mark) and target.exists() and _contains(target, mark)
    for given in (Path(given) for given in inputs if given is not None):
        if given.is_dir() and ours:
            continue  # an earlier output beside the files of a checkpoint
        for read in _files_of(given):
            if _same(target, read) or _same(partial_path(target), read):
                raise InputError(f"{path} is also an input ({read}): writing it would destroy it; name another output")
    if mark and not (ours or force) and target.exists() and target.stat().st_size:
        raise InputError(
            f"{path} exists, and it is not a file of this kind written by gguf-golf: "
            "name another output, or pass --force to replace it"
        )


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the right to make `path`: one process at a time, reentrant within a thread.

    Waits for another process that holds it, saying so, if `wait`; raises InputError otherwise.
    """
    target = Path(os.path.realpath(path))  # one lock, by whatever links it is reached
    target.parent.mkdir(parents=True, exist_ok=True)
    file = target.with_name(f".{target.name}.lock")
    lock = FileLock(file, is_singleton=True)
    try:
        # not 0: the file of a lock that is just being released costs a second attempt
        lock.acquire(timeout=0.2)
    except Timeout:
        if not wait:
            raise InputError(
                f"{path}: another process is writing it; wait until that has finished, or name another output"
            ) from None
        click.echo(f"waiting for another gguf-golf that is making {path}", err=True)
        lock.acquire()
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            file.unlink(missing_ok=True)  # safe while it is held: filelock never takes a deleted file for the lock
        lock.release()


@contextmanager
def named_errors(path: Path, *others: Path) -> Iterator[None]:
    """Turn an OSError of the block into an InputError: about `path`, unless it names a file that is not in `others`."""
    try:
        yield
    except BrokenPipeError:
        raise  # of standard output
    except OSError as error:
        reason = error.strerror or str(error)
        foreign = error.filename is not None and Path(os.fsdecode(error.filename)) not in (path, *others)
        raise InputError(
            f"{error.filename}: {reason}" if foreign else f"{path}: cannot be written ({reason})"
        ) from error


def allocate(file: IO[bytes], size: int) -> None:
    """Make an open file `size` bytes long, zeros at its end, with disk space reserved for them where the system can.

    A full disk is then an OSError here, before any work, and not a signal when mapped memory is written.
    """
    file.flush()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    file.truncate(size)


def partial_path(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(path.name + ".partial")


def sync(path: Path) -> None:
    """Have a file's data, or a folder's names, reach the disk before anything that follows."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def part_paths(path: Path) -> list[Path]:
    """Where all parts of a split GGUF are, by the name of one of them, in order; none for another name."""
    match = PART_NAME.fullmatch(path.name)
    if match is None:
        return []
    count = int(match["parts"])
    return [path.with_name(f"{match['stem']}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]


def sync_tree(folder: Path) -> None:
    """Have a folder with all that is in it reach the disk; links are not followed."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            sync(path)


def _files_of(given: Path) -> list[Path]:
    """The files that reading `given` reads, or may read."""
    if given.is_dir():
        return [path for path in given.iterdir() if path.is_file()]
    return part_paths(given) or [given]


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _contains(path: Path, mark: bytes) -> bool:
    tail = b""
    with path.open("rb") as file:
        for _ in range(_MARK_WITHIN // _BLOCK):
            block = file.read(_BLOCK)
            if mark in tail + block:
                return True
            if not block:
                break
            tail = block[-len(mark) :]
    return False
