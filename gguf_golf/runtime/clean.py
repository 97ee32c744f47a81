"""Deleting what earlier builds left in the cache."""

import shutil
from pathlib import Path

from gguf_golf.runtime import config
from gguf_golf.runtime.cache import cache_dir, locked
from gguf_golf.runtime.library import current, manifest


def clean() -> int:
    """Delete every runtime, source and tree in the cache that this environment's runtime does not use.

    Returns how many bytes that freed. What another environment still uses is made again when it is next asked for.
    Raises BuildError when this environment has no runtime and cannot build one.
    """
    runtime = current()
    parts = manifest(runtime)
    cache = cache_dir().resolve()
    keep = {runtime.resolve(), cache / "source" / parts["source"], cache / "tree" / config.tree_key(parts)}
    freed = 0
    for room in ("runtime", "source", "tree"):
        for folder in (cache / room).glob("[!.]*"):
            if folder not in keep:
                with locked(folder):  # not under the hands of a process that is making it
                    freed += _size(folder)
                    shutil.rmtree(folder)
    return freed


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
