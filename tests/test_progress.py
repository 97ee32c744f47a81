"""Progress is drawn on a terminal, told to a callback, and otherwise not shown."""

import fcntl
import io
import os
import pty
import struct
import sys
import termios

import pytest

from gguf_golf.progress import Progress, ProgressBar, announce, quiet, reported


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_a_bar_is_drawn_on_a_terminal_only(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(ProgressBar([1, 2], desc="counting")) == [1, 2]
    assert ("counting" in stream.getvalue()) == stream.isatty()


def test_a_bar_keeps_within_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        list(
            ProgressBar(
                range(3), desc="measuring a-model-with-quite-a-long-name-tcq3.gguf", unit="chunk", mininterval=0
            )
        )
        written = ""
        while "\n" not in written:
            written += os.read(ours, 10_000).decode()
        monkeypatch.undo()
    os.close(ours)
    drawn = written.replace("\n", "\r").split("\r")
    assert any("-name-tcq3.gguf" in line and "3/3" in line and line.endswith("chunk/s]") for line in drawn)
    assert max(map(len, drawn)) <= 80


def test_quiet_draws_and_announces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with quiet():
        list(ProgressBar([1, 2], desc="counting"))
        announce("building")
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_a_log_gets_one_line_where_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    announce("building")
    assert capsys.readouterr().err == "building\n"


def test_a_callback_is_told_instead(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Progress] = []
    with reported(told.append):
        list(ProgressBar("ab", desc="letters", unit="letter"))
        with ProgressBar(total=10, initial=3, desc="numbers") as bar:
            bar.update(2)
            bar.update(9 - bar.n)
        announce("building")
    assert told[:2] == [Progress("letters", n, 2, "letter") for n in (1, 2)]
    assert [progress.done for progress in told[2:]] == [5, 9]
    assert capsys.readouterr().err == ""
