"""What a worker does: one step at a time, unless its output is there already."""

import atexit
import importlib
import os
import shutil
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError
from gguf_golf.progress import quiet
from gguf_golf.steps.step import File, Step, Task, check_code
from gguf_golf.steps.store import Made, Store, open_store

WATCH_SECONDS = 1

_one_at_a_time = threading.Lock()  # residents are not for two threads of a worker at once


def work(step: Step, store_url: str) -> Made:
    """Run a step and keep its output in the store. Raises what the step raises, and InputError for missing inputs."""
    with _one_at_a_time, quiet():
        started = time.monotonic()
        check_code(step)
        store = _store(store_url)
        found = store.find(step.key)
        if found is not None:
            return found
        inputs = {name: _locate(file, store) for name, file in step.inputs.items()}
        task = Task(inputs, step.parameters, step.needs.cores, _scratch())
        return store.put(step.key, _function(step.function)(task), lambda: time.monotonic() - started)


def end_with(driver: int) -> None:
    """End this process once `driver`, the process that started it, is gone: one that is killed cannot tell."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(WATCH_SECONDS)
        shutil.rmtree(_scratch(), ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _locate(file: File, store: Store) -> Path:
    if file.is_here():
        return file.path
    found = store.fetch(file.sha256)
    if found is None:
        raise InputError(
            f"a worker does not see {file.path}: let it see the folder under the same path, or give a --store URL "
            "that every machine reaches"
        )
    return found


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


@cache
def _store(url: str) -> Store:
    return open_store(url)


@cache
def _scratch() -> Path:
    """A folder of this process's own; it goes when the process ends, unless it is killed."""
    folder = tempfile.mkdtemp(prefix="gguf-golf-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
