"""`gguf-golf runtime`, as a user sees it."""

import sys

import pytest
from click.testing import CliRunner

from gguf_golf.cli import cli, main
from gguf_golf.runtime import bindings, build, library, pin, source


def test_info_names_pin_paths_and_our_types() -> None:
    runtime = library.current()
    done = CliRunner().invoke(cli, ["runtime", "info"])
    assert done.exit_code == 0, done.output
    assert pin.SHA256 in done.output
    assert str(runtime) in done.output
    assert ["tcq3", "114", "256", "100", "3.1250"] in [line.split() for line in done.output.splitlines()]


def test_info_of_an_environment_without_a_runtime_builds_and_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("info must only look")

    monkeypatch.setattr(bindings, "linked", lambda: None)
    for module, name in ((bindings, "ensure_installed"), (bindings, "link"), (build, "build"), (source, "sdist")):
        monkeypatch.setattr(module, name, never)
    done = CliRunner().invoke(cli, ["runtime", "info"])
    assert done.exit_code == 0, done.output
    assert "none: run `gguf-golf runtime build`" in done.output


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has Metal")
def test_an_impossible_build_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gguf-golf", "runtime", "build", "--metal"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: --metal needs a Mac")
