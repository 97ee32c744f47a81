"""Progress: a bar on a terminal, and a callback for programs that use gguf_golf as a library.

No bar is drawn where standard error is not a terminal, nor while `quiet` is set.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm


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

_WIDEST = 32


class ProgressBar(tqdm):  # type: ignore[type-arg]  # not subscriptable when it runs
    """A tqdm bar that is drawn on a terminal only, and tells the callback, if there is one, instead."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        silent = _quiet.get() or _callback.get() is not None
        options["disable"] = True if silent or options.get("disable") else None
        self._what, self._unit = str(options.get("desc") or ""), str(options.get("unit", "it"))
        options["desc"] = _shortened(self._what) or None
        super().__init__(*arguments, **{"dynamic_ncols": True, **options})

    def update(self, n: float | None = 1) -> bool | None:
        """As tqdm's; the callback is told, and a bar that is not drawn counts as well."""
        if self.disable:
            self.n += n or 0
        if (callback := _callback.get()) is not None:
            callback(Progress(self._what, self.n, self.total, self._unit))
        return super().update(n)

    def __iter__(self) -> Iterator[Any]:
        if not self.disable:
            yield from super().__iter__()
            return
        for item in self.iterable:
            yield item
            self.update()


def _shortened(what: str) -> str:
    """What a bar says in front, so that 80 columns also hold how far it is: file names end in what tells them apart."""
    return what if len(what) <= _WIDEST else f"{what[: _WIDEST // 2 - 1]}…{what[-_WIDEST // 2 :]}"


def announce(what: str) -> None:
    """Say what takes a while where no bar can show it: one line on standard error."""
    if not (_quiet.get() or _callback.get() or sys.stderr.isatty()):
        print(what, file=sys.stderr, flush=True)


def note(what: str) -> None:
    """Say what a user should know while the work goes on: one line on standard error, above a bar if there is one."""
    if not (_quiet.get() or _callback.get()):
        tqdm.write(what, file=sys.stderr)


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
    """Within the block, no bar is drawn and nothing is announced."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
