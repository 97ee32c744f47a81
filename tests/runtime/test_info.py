"""`gguf-golf runtime`, as a user sees it."""

import sys

import pytest
from click.testing import CliRunner

from gguf_golf.cli import cli, main
from gguf_golf.runtime import library, pin


def test_info_names_pin_paths_and_our_types() -> None:
    done = CliRunner().invoke(cli, ["runtime", "info"])
    assert done.exit_code == 0, done.output
    assert pin.SHA256 in done.output
    assert str(library.current()) in done.output
    assert ["tcq3", "114", "256", "100", "3.1250"] in [line.split() for line in done.output.splitlines()]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has Metal")
def test_an_impossible_build_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gguf-golf", "runtime", "build", "--metal"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: --metal needs a Mac")
