"""Tensors that several files of a model share are encoded once: budgets and their rivals have most of them in common.

A tensor's bytes follow from what its file is made from and from its type. They stay in a folder until someone deletes
it; with n types in use it grows to the size of n files.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_golf.container.tensors import Stored
from gguf_golf.quantize.prepare import Prepared
from gguf_golf.quantize.writer import Produce
from gguf_golf.steps.store import FolderStore

_BLOCK = 1 << 24  # bytes handed on at a time


def reusing(folder: Path, made: Prepared, produce: Produce) -> Produce:
    """The same tensors, those that `folder` has from there; `produce` makes the others, which it then has too.

    Only what is costly to make is kept, and no protected rows, which also follow from the type of their matrix.
    """
    store = FolderStore(folder)

    def produced(tensors: Sequence[Stored]) -> Iterator[tuple[Stored, Iterator[NDArray[np.uint8]]]]:
        keys = {each.name: _key(made, each) for each in tensors if made.is_costly(each)}
        found = {name: record for name, key in keys.items() if (record := store.find(key)) is not None}
        fresh = produce([each for each in tensors if each.name not in found])
        for tensor in tensors:
            record = found.get(tensor.name)
            if record is None:
                _, parts = next(fresh)
                if tensor.name not in keys:
                    yield tensor, parts
                    continue
                started = time.monotonic()
                record = store.put(keys[tensor.name], parts, lambda since=started: time.monotonic() - since)
            path = store.fetch(record.sha256)
            assert path is not None
            yield tensor, _blocks(path)

    return produced


def _key(made: Prepared, tensor: Stored) -> str:
    parts = [made.made_from, tensor.name, tensor.type.name]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _blocks(path: Path) -> Iterator[NDArray[np.uint8]]:
    data = np.memmap(path, np.uint8, "r")
    return (data[first : first + _BLOCK] for first in range(0, len(data), _BLOCK))
