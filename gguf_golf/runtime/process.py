"""Run a program with its output in a log: a progress bar while it runs, the relevant lines when it fails."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from gguf_golf.errors import BuildError
from gguf_golf.progress import ProgressBar, announce

# ninja's [3/78], and what pip prints under --progress-bar raw
_STEP = re.compile(r"(?:\[|Progress )(\d+)(?:/| of )(\d+)")
_UNCOUNTED, _COUNTED = "{desc} [{elapsed}]", "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
_LINES_SHOWN = 25


def run(command: Iterable[object], what: str, log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run `command`, append its output to `log`, and show a bar that follows the steps it counts.

    `what` says in the user's words what is happening. Raises BuildError with the end of the output on failure.
    """
    lines: list[str] = []
    announce(what)
    with (
        log.open("a", buffering=1) as sink,
        subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            text=True,
            errors="replace",
        ) as process,
        ProgressBar(desc=what, bar_format=_UNCOUNTED) as bar,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            sink.write(line)
            lines.append(line)
            if step := _STEP.match(line):
                bar.bar_format, bar.total = _COUNTED, int(step[2])
                bar.update(int(step[1]) - bar.n)
    if process.returncode != 0:
        raise BuildError(f"{what} failed (exit code {process.returncode}); all output is in {log}\n{_telling(lines)}")


def _telling(lines: list[str]) -> str:
    """The lines from ninja's first FAILED or cmake's first error on, or the last ones."""
    first = next((i for i, line in enumerate(lines) if line.startswith(("FAILED:", "CMake Error"))), None)
    shown = lines[-_LINES_SHOWN:] if first is None else lines[first : first + _LINES_SHOWN]
    return "".join(f"    {line}" for line in shown).rstrip()
