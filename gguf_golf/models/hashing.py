"""What tells files apart: their SHA-256, by which caches are keyed and reports name their inputs, or a cheap stamp."""

import hashlib
from functools import lru_cache
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.progress import ProgressBar

BLOCK = 1 << 24
_CHECKPOINT = (".safetensors", ".bin", ".json", ".model", ".jinja", ".txt", ".tiktoken", ".py")
SLOW_BYTES = 4 << 30  # a progress bar from here on


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file. Raises InputError if it cannot be read."""
    path = Path(path).resolve()
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def stamp(source: Path) -> list[list[str | int]]:
    """[path, size, time of change in ns] of a file, or of every file of a checkpoint that may be read.

    Any change of a source changes its stamp, without reading it. Raises InputError if it cannot be read.
    """
    try:
        paths = [source] if source.is_file() else [p for p in sorted(source.iterdir()) if p.suffix in _CHECKPOINT]
        stats = [(path.resolve(), path.stat()) for path in paths]
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, _mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with (
        path.open("rb") as file,
        ProgressBar(
            total=size,
            desc=f"hash {path.name}",
            unit="B",
            unit_scale=True,
            leave=False,
            disable=size < SLOW_BYTES,
        ) as bar,
    ):
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
