"""Running a program: the log, and the lines that a failure shows."""

import sys
from pathlib import Path

import pytest

from gguf_golf.errors import BuildError
from gguf_golf.runtime import process


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process.run([sys.executable, "-c", "print('[1/2] one'); print('[2/2] two')"], "trying", log)
    assert log.read_text() == "[1/2] one\n[2/2] two\n"


def test_a_failure_shows_the_compiler_error_and_not_what_came_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "print('[1/9] fine'); print('FAILED: a.o'); print('a.c:1: error: x'); raise SystemExit(3)"
    with pytest.raises(BuildError) as error:
        process.run([sys.executable, "-c", script], "building", log)
    message = str(error.value)
    assert message.startswith(f"building failed (exit code 3); all output is in {log}\n    FAILED: a.o\n")
    assert "a.c:1: error: x" in message
    assert "fine" not in message
