"""A step: a function's name, files by content, parameters and needs. Any process with the same gguf-golf can run it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gguf_golf import __version__
from gguf_golf.errors import InputError
from gguf_golf.models.hashing import file_sha256
from gguf_golf.runtime.source import source_key


@cache
def this_code() -> str:
    """Names the gguf-golf of this process: its version, and its patched llama.cpp, whatever CPU it was built for."""
    return f"{__version__}+{source_key()}"


@dataclass(frozen=True)
class File:
    """An input: where its owner has it, and what it holds.

    A machine that sees the same file at `path` (size and time of change in ns agree, or else the hash) reads it there.
    """

    path: Path
    bytes: int
    changed: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "File":
        """Raises InputError for a file that cannot be read."""
        digest, path = file_sha256(path), path.resolve()
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns, digest)

    def is_here(self) -> bool:
        """Whether this machine has the file at its path."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        if status.st_size != self.bytes:
            return False
        return status.st_mtime_ns == self.changed or file_sha256(self.path) == self.sha256


@dataclass(frozen=True)
class Needs:
    """What a step takes while it runs: cores, bytes of memory (0: not worth mentioning), and whether a GPU."""

    cores: int = 1
    memory: int = 0
    gpu: bool = False


@dataclass(frozen=True)
class Step:
    """`function` is "package.module:name" of a function of a `Task` that yields the output's bytes, part by part.

    The output depends on the function, the contents of `inputs` and `parameters` (plain JSON data) alone, never on
    `needs`. `name` is for people.
    """

    name: str
    function: str
    inputs: Mapping[str, File]
    parameters: Mapping[str, Any]
    needs: Needs = Needs()
    code: str = field(default_factory=this_code)

    @property
    def key(self) -> str:
        """Names the output: equal keys, equal bytes."""
        parts = [
            self.code,
            self.function,
            {name: file.sha256 for name, file in self.inputs.items()},
            dict(self.parameters),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """A step on the machine that runs it: its inputs as files there, and a folder for what is too large for memory."""

    inputs: Mapping[str, Path]
    parameters: Mapping[str, Any]
    cores: int
    scratch: Path


def check_code(step: Step) -> None:
    """Raise InputError where another gguf-golf asks for the step."""
    if step.code != this_code():
        raise InputError(
            f"this worker runs gguf-golf {this_code()}, and {step.name} is a step of {step.code}: "
            "install the same version on every machine"
        )
