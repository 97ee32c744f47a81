"""The folder of everything that can be made again: where it is, who may read it, and how much of it is kept.

Layout of `cache_dir()`; anything in it may be deleted at any time, and is made again:

    sdist/               the pinned source distribution
    source/KEY/          llama.cpp, patched; the key names pin and patches
    tree/KEY/            where ninja works: one tree per compiler, flags and CPU; survives a change of patches
    runtime/KEY/         what was built: manifest.json, lib/, tools/, tests/; never changed once it is there
    bindings/VERSION/    llama-cpp-python, for Python environments that are read-only
    converted/           checkpoints as GGUF files
    sampled/             text that models wrote, as tokens
    eval/                base log-probabilities, answers, speeds
"""

import os
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from gguf_golf.sizes import parse_size

DEFAULT_LIMIT = "50GB"

ROOMS = {
    "sdist": "builds",
    "source": "builds",
    "tree": "builds",
    "runtime": "builds",
    "bindings": "builds",
    "converted": "converted",
    "sampled": "converted",
    "eval": "eval",
}
"""Folders of the cache, and the kind that their entries are shown and cleaned as."""

IN_USE_SECONDS = 24 * 3600
"""What changed or was asked for within a day may be in use by another process, and is not cleaned up by itself."""


def cache_dir() -> Path:
    """$GGUF_GOLF_CACHE, or the user's cache folder for gguf-golf on this system; other users cannot read it.

    A folder named by the variable keeps the permissions that it has, if it exists already.
    """
    override = os.environ.get("GGUF_GOLF_CACHE")
    folder = Path(override).resolve() if override else user_cache_path("gguf-golf")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    elif not override and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


@dataclass(frozen=True)
class Entry:
    """One thing in the cache: what it is kept for, its size on disk, and when it was last made, changed or asked for.

    Leftovers are hidden files and folders that a process left behind when it was killed.
    """

    kind: str
    path: Path
    bytes: int
    used: float


def entries() -> list[Entry]:
    """Everything in the cache, least recently used first; locks are not counted."""
    found = []
    for room, kind in ROOMS.items():
        for path in (cache_dir() / room).glob("*"):
            if path.suffix != ".lock":
                with suppress(FileNotFoundError):  # another process deletes what it has finished with
                    found.append(_entry("leftovers" if path.name.startswith(".") else kind, path))
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def mark_used(path: Path) -> None:
    """Note that an entry was asked for just now."""
    os.utime(path)


def make_room() -> int:
    """Delete leftovers and the least recently used conversions and evaluations until the cache is within its limit.

    The limit is $GGUF_GOLF_CACHE_LIMIT, such as 20GB, or DEFAULT_LIMIT. Nothing of the last day is deleted, and no
    builds: `gguf-golf cache clean` does that. Returns how many bytes that freed.
    """
    limit = parse_size(os.environ.get("GGUF_GOLF_CACHE_LIMIT", DEFAULT_LIMIT))
    present = entries()
    excess, freed, idle_since = sum(entry.bytes for entry in present) - limit, 0, time.time() - IN_USE_SECONDS
    for entry in present:
        is_wanted = entry.kind != "leftovers" and (entry.kind == "builds" or freed >= excess)
        if not is_wanted and entry.used < idle_since:
            delete(entry)
            freed += entry.bytes
    return freed


def delete(entry: Entry) -> None:
    """Delete an entry."""
    if entry.path.is_dir() and not entry.path.is_symlink():
        shutil.rmtree(entry.path)
    else:
        entry.path.unlink(missing_ok=True)


def _entry(kind: str, path: Path) -> Entry:
    inside = [found.lstat() for found in path.rglob("*")] if path.is_dir() and not path.is_symlink() else []
    own = path.lstat()
    size = sum(status.st_blocks * 512 for status in [own, *inside])
    return Entry(kind, path, size, max(status.st_mtime for status in [own, *inside]))
