"""Steps of the tests in this folder: importable, as workers need them."""

import os
import time
from collections.abc import Iterator

from gguf_golf.errors import DataError
from gguf_golf.steps import Task


def upper(task: Task) -> Iterator[bytes]:
    """The input in capitals, `times` times; notes in the file `log` that it ran."""
    with open(task.parameters["log"], "a", encoding="utf-8") as log:
        log.write("ran\n")
    for _ in range(task.parameters["times"]):
        yield task.inputs["text"].read_bytes().upper()


def failing(task: Task) -> Iterator[bytes]:
    """Finds its data wrong."""
    yield b"the beginning"
    raise DataError("wrong data")


def slow(task: Task) -> Iterator[bytes]:
    """Takes `seconds`."""
    time.sleep(task.parameters["seconds"])
    yield str(task.parameters["number"]).encode()


def pid(_: Task) -> Iterator[bytes]:
    """The worker's process."""
    yield str(os.getpid()).encode()


def endless(task: Task) -> Iterator[bytes]:
    """Writes its own process to the file `log`, and never ends."""
    with open(task.parameters["log"], "a", encoding="utf-8") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(3600)
    yield b""
