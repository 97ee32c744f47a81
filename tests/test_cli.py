"""Errors reach a user as one line; help needs no runtime."""

import sys

import click
import pytest
from click.testing import CliRunner

from gguf_golf import cli
from gguf_golf.errors import InputError


@pytest.mark.parametrize("error", [InputError("the file is odd: mend it"), OSError(28, "No space left on device", "x")])
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


def test_every_command_has_help() -> None:
    for name in cli.cli.commands:
        result = CliRunner().invoke(cli.cli, [name, "--help"])
        assert result.exit_code == 0, name
        assert cli.cli.commands[name].help, name
