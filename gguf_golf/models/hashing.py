"""SHA-256 of files: what caches are keyed by, and what a report states about its inputs."""

import hashlib
from functools import lru_cache
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.progress import ProgressBar

BLOCK = 1 << 24
SLOW_BYTES = 4 << 30  # a progress bar from here on


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file. Raises InputError if it cannot be read."""
    path = Path(path).resolve()
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


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
