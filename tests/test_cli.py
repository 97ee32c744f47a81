"""Errors reach a user as one line; help needs no runtime."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gguf_golf import cli
from gguf_golf.cli_reference import reference
from gguf_golf.errors import InputError


@pytest.mark.parametrize("error", [InputError("the file is odd: fix it"), OSError(28, "No space left on device", "x")])
def test_an_error_is_one_line_and_exit_code_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli, "cli", failing)
    monkeypatch.setattr(sys, "argv", ["gguf-golf"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert len(captured.splitlines()) == 1


def test_the_command_reference_is_what_the_commands_say() -> None:
    page = Path(__file__).parents[1] / "docs" / "cli.md"
    assert page.read_text() == reference(), "make docs"


def test_every_command_has_help() -> None:
    for name in cli.cli.commands:
        result = CliRunner().invoke(cli.cli, [name, "--help"])
        assert result.exit_code == 0, name
        assert cli.cli.commands[name].help, name


def test_every_command_that_takes_arguments_shows_one_in_use() -> None:
    without = {name for name, command in leaves(cli.cli) if f"gguf-golf {name}" not in (command.help or "")}
    assert without == {"runtime build", "runtime info", "cache show", "data list", "demo"}


def test_no_text_is_required_where_one_comes_along() -> None:
    takes = {name: param for name, command in leaves(cli.cli) for param in command.params if "--text" in param.opts}
    assert {"imatrix", "sensitivity", "eval", "fit", "sweep"} <= takes.keys()
    assert not [name for name, param in takes.items() if param.required]


def leaves(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{name} ")
        else:
            yield before + name, command


def test_version_and_help_wait_for_no_large_library() -> None:
    program = (
        "import sys; from gguf_golf.cli import cli\n"
        "cli([sys.argv[1]], standalone_mode=False)\n"
        "large = {'numpy', 'scipy', 'gguf', 'jinja2', 'llama_cpp', 'tqdm', 'filelock'}\n"
        "sys.exit(', '.join(large & sys.modules.keys()) or None)"
    )
    for option in ("--version", "--help"):
        subprocess.run([sys.executable, "-c", program, option], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("n", ["0", "-3", "many"])
def test_a_number_of_threads_below_one_is_refused_by_name(n: str) -> None:
    for name in ("convert", "imatrix", "eval", "run", "sensitivity", "quantize", "fit", "sweep"):
        result = CliRunner().invoke(cli.cli, [name, "model.gguf", "--threads", n])
        assert result.exit_code == 2, name
        assert "Invalid value for '--threads'" in result.output, name


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_one_thread_holds_for_blas_too(tmp_path: Path) -> None:
    program = (
        "import os, sys; from gguf_golf.cli import cli\n"
        "from gguf_golf.errors import GolfError\n"
        "try: cli(['convert', sys.argv[1], '-o', sys.argv[1] + '.gguf', '--threads', sys.argv[2]])\n"
        "except GolfError: pass\n"
        "import numpy, scipy.linalg; print(len(os.listdir('/proc/self/task')))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "absent")]
    assert subprocess.check_output([*command, "1"], text=True) == "1\n"
    assert int(subprocess.check_output([*command, "3"], text=True)) > 1


@pytest.mark.parametrize("option", [["--cores", "2"], ["--store", "elsewhere"]])
def test_options_of_an_executor_are_not_ignored_without_one(option: list[str], tmp_path: Path) -> None:
    (tmp_path / "base.gguf").touch()
    result = CliRunner().invoke(cli.cli, ["sensitivity", str(tmp_path / "base.gguf"), "--quick", *option])
    assert result.exit_code == 2
    assert "--cores and --store are for an --executor" in result.output
