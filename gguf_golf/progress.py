"""Progress: a bar on a terminal, and a callback for programs that use gguf_golf as a library.

Nothing is drawn where standard error is not a terminal, nor while `quiet` is set.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is: `done` of `total` `unit`s of `what`; `total` is None where it is not known."""

    what: str
    done: float
    total: float | None
    unit: str


Callback = Callable[[Progress], object]

_callback: ContextVar[Callback | None] = ContextVar("callback", default=None)
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


class bar(tqdm[Item]):
    """A tqdm bar that reports to the callback, and is drawn on a terminal only, 80 columns wide where it is unknown."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        silent = _quiet.get() or _callback.get() is not None
        options["disable"] = True if silent or options.get("disable") else None
        super().__init__(*arguments, **{"dynamic_ncols": True, **options})
        # a bar that is not drawn keeps neither its name nor its count
        self._what, self._unit = str(options.get("desc") or ""), str(options.get("unit", "it"))
        self._done, self._total = float(options.get("initial", 0)), options.get("total")
        if self._total is None and arguments and hasattr(arguments[0], "__len__"):
            self._total = len(arguments[0]) + self._done

    def update(self, n: float | None = 1) -> bool | None:
        """As tqdm's; the callback is told."""
        self._done += n or 0
        if (callback := _callback.get()) is not None:
            callback(Progress(self._what, self._done, self._total, self._unit))
        return super().update(n)

    def __iter__(self) -> Iterator[Item]:
        if _callback.get() is None:
            yield from super().__iter__()
            return
        for item in self.iterable:
            yield item
            self.update()


@contextmanager
def reported(callback: Callback | None) -> Iterator[None]:
    """Within the block, progress goes to `callback` instead of a bar; None changes nothing."""
    token = _callback.set(callback or _callback.get())
    try:
        yield
    finally:
        _callback.reset(token)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, no bar is drawn."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
