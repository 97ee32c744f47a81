"""What a process keeps open from one step to the next: a loaded model, a text's base. At most KEPT of them."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")

KEPT = 4
_open: dict[Hashable, tuple[AbstractContextManager[Any], Any]] = {}


def resident(key: Hashable, make: Callable[[], AbstractContextManager[T]]) -> T:
    """What `make` makes, entered as a context manager; the same object as long as it is among the KEPT last used."""
    if key in _open:
        _open[key] = _open.pop(key)  # the latest is the last
    else:
        while len(_open) >= KEPT:
            _close(next(iter(_open)))
        manager = make()
        _open[key] = manager, manager.__enter__()
    value: T = _open[key][1]
    return value


def _close(key: Hashable) -> None:
    manager, _ = _open.pop(key)
    manager.__exit__(None, None, None)
