"""Ctrl-C while it is deferred; each test raises the signal itself."""

import signal
from collections.abc import Iterator

import pytest

from gguf_golf.interrupt import deferred


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_is_noted_and_the_second_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), deferred() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        signal.raise_signal(signal.SIGINT)


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred() as pressed:
        signal.raise_signal(signal.SIGINT)
        assert not pressed()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
