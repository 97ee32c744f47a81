"""A Hugging Face folder as a file that llama.cpp can load: converted once, in its own precision, into the cache."""

import hashlib
from pathlib import Path

from gguf_golf import __version__
from gguf_golf.files import part_paths
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import Job
from gguf_golf.runtime.cache import cache_dir, make_room, mark_used


def as_gguf(path: Path) -> Path:
    """`path` itself if it is a GGUF, the first part of a split one, or the conversion of a folder.

    Raises InputError as `convert` does.
    """
    if not path.is_dir():
        return next(iter(part_paths(path)), path)
    target = cache_dir() / "converted" / f"{path.resolve().name}-{_key(path)}.gguf"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        convert(path, target, type_name=None, job=Job(keep_lattice=False))  # products with a quantized type round more
        make_room()
    mark_used(target)
    return target


def _key(directory: Path) -> str:
    """Names the conversion: a hash of our version and of every file's name, size and time of change."""
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
