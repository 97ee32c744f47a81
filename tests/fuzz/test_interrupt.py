"""A few kills, pairs and full disks; `python -m tests.fuzz.interrupt` tries as many as wanted, on every command."""

import subprocess
import sys
from pathlib import Path

COMMANDS = ("convert", "imatrix", "report")


def test_what_is_disturbed_leaves_no_torn_file_and_resumes_to_the_same_bytes() -> None:
    chosen = [word for name in COMMANDS for word in ("--command", name)]
    # a process of its own: it forks, which one with ggml's threads must not
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.interrupt", "--kills", "4", "--pairs", "1", "--disks", "2", *chosen],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 3 * len(COMMANDS)
