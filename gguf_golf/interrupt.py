"""Ctrl-C while something runs that must not stop in the middle."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C is only noted, and a second one interrupts at once.

    Yields what tells whether it was pressed: ask between two steps, and raise KeyboardInterrupt there. Signals are the
    main thread's; in any other, nothing is deferred, nor in a job that ignores Ctrl-C (in the background, or of nohup).
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield lambda: False
        return
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
