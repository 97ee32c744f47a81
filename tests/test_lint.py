"""ruff, mypy and typos, as tests: a change that they reject is as broken as one that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_lint(command: str) -> None:
    check(sys.executable, "-m", *command.split())


def test_spelling() -> None:
    check(str(Path(sys.executable).with_name("typos")))  # a program, not a module


def check(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
