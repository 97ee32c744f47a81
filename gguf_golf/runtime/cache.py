"""Where the runtime room keeps what it can make again, and the locks that guard making it.

Layout below `cache_dir()`; everything may be deleted at any time and is made again:

    sdist/         the pinned source distribution
    source/KEY/    llama.cpp, patched; the key names pin and patches
    tree/KEY/      where ninja works, one tree per compiler, flags and CPU; survives a change of patches
    runtime/KEY/   what was built: manifest.json, lib/, tools/, tests/; never changed once it is there
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from filelock import FileLock, Timeout
from platformdirs import user_cache_path


def cache_dir() -> Path:
    """$GGUF_GOLF_CACHE, or the user's cache folder for gguf-golf on this system."""
    override = os.environ.get("GGUF_GOLF_CACHE")
    return Path(override).resolve() if override else user_cache_path("gguf-golf")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to make `path`: one process at a time. Reentrant within a thread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        click.echo(f"waiting for another gguf-golf that is making {path}", err=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
