"""A pool of one worker, which is this process, and which can be lost."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gguf_golf.steps import Needs


class Lost(Exception):
    """What a lost worker looks like."""


class InProcess:
    """Calls at once; the first `lose` calls are lost instead."""

    lost = (Lost,)

    def __init__(self, lose: int) -> None:
        self._lose = lose

    def submit(self, needs: Needs, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            if self._lose:
                self._lose -= 1
                raise Lost
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """There is nothing to let go of."""
