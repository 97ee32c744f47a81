"""What `gguf-golf cache show` and `gguf-golf cache clean` do."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gguf_golf.files import locked
from gguf_golf.runtime import bindings, cache, config, library

KINDS = ("builds", "converted", "eval", "leftovers")


def show() -> tuple[str, dict[str, Any]]:
    """The cache's folder and entries, the last used first: as text, and as a document."""
    folder, present = cache.cache_dir(), cache.entries()[::-1]
    total = sum(entry.bytes for entry in present)
    lines = [f"{folder}: {_megabytes(total)}"]
    for entry in present:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        lines.append(f"{entry.kind:<11}{_megabytes(entry.bytes):>14}  used {used}  {entry.path.relative_to(folder)}")
    found = [
        {"kind": entry.kind, "path": str(entry.path.relative_to(folder)), "bytes": entry.bytes, "used": entry.used}
        for entry in present
    ]
    return "\n".join(lines), {"schema": "gguf-golf/cache", "folder": str(folder), "bytes": total, "entries": found}


def clean(kinds: Collection[str] = KINDS, max_bytes: int = 0, older_than: float = 0) -> int:
    """Delete the least recently used entries of these kinds until the whole cache has at most `max_bytes`.

    What this environment's runtime is made of stays, and what was used within the last `older_than` seconds. Returns
    how many bytes that freed; it is all made again when it is next asked for.
    """
    keep = _in_use()
    present = cache.entries()
    excess, freed = sum(entry.bytes for entry in present) - max_bytes, 0
    for entry in present:
        if freed >= excess:
            break
        if entry.kind in kinds and entry.path not in keep and entry.used <= time.time() - older_than:
            with locked(entry.path, wait=True):  # not under the hands of a process that is making it
                cache.delete(entry)
            freed += entry.bytes
    return freed


def _in_use() -> set[Path]:
    """The entries that the runtime which this environment is linked to came from, if there is one."""
    top, runtime = cache.cache_dir(), bindings.linked()
    keep = {*(top / "sdist").glob("[!.]*"), *(top / "bindings").glob("[!.]*")}
    if runtime is not None:
        parts = library.manifest(runtime)
        keep |= {runtime, top / "source" / parts["source"], top / "tree" / config.tree_key(parts)}
    return keep


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB"
