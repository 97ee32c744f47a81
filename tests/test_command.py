"""What every command shares: --json, -q, -v, MODEL."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gguf_golf import cli
from gguf_golf.command import MODEL, Group, output
from gguf_golf.errors import InputError
from gguf_golf.hub import locate
from gguf_golf.quantize.cached import as_gguf


@click.group(cls=Group)
def group() -> None:
    pass


@group.command("act")
@click.argument("model", type=MODEL)
def act_command(model: Path) -> None:
    """Act."""
    output().say("working")
    output().result("the words", {"schema": "gguf-golf/act", "model": model.name})


def act(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["act", *map(str, arguments)])


def test_results_go_to_standard_output_and_the_rest_to_standard_error(tmp_path: Path) -> None:
    result = act(tmp_path)
    assert (result.stdout, result.stderr) == ("the words\n", "working\n")
    quiet = act(tmp_path, "-q")
    assert (quiet.stdout, quiet.stderr, quiet.exit_code) == ("the words\n", "", 0)


@group.command("shout")
def shout_command() -> None:
    """Print what a stranger's file says."""
    output().say("note \x1b[2J")
    output().result("name \x1b]0;title\x07 \u202e\t文\u3000字", {"schema": "gguf-golf/shout"})


def test_control_characters_do_not_reach_the_terminal() -> None:
    result = CliRunner().invoke(group, ["shout"])
    assert result.stdout == "name \\x1b]0;title\\x07 \\u202e\t文\u3000字\n"
    assert result.stderr == "note \\x1b[2J\n"


def test_json_is_written_even_if_nobody_reads_the_words(tmp_path: Path) -> None:
    code = "from tests.test_command import act_command as c; from gguf_golf.command import Output; c(obj=Output())"
    command = [sys.executable, "-c", code, str(tmp_path), "--json", str(tmp_path / "out.json")]
    line = f"{shlex.join(command)} >&-"
    done = subprocess.run(line, check=False, shell=True, cwd=Path(__file__).parents[1], capture_output=True)
    assert json.loads((tmp_path / "out.json").read_text())["schema"] == "gguf-golf/act", done.stderr


def test_json_alone_replaces_the_words(tmp_path: Path) -> None:
    result = act(tmp_path, "--json")
    assert json.loads(result.stdout) == {"schema": "gguf-golf/act", "model": tmp_path.name}


def test_json_with_a_path_is_written_beside_the_words(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert act(tmp_path, "--json", file).stdout == "the words\n"
    assert json.loads(file.read_text())["schema"] == "gguf-golf/act"
    assert act(tmp_path, "--json", file).exit_code == 0, "our own file may be replaced"


@pytest.mark.parametrize("content", ["somebody's notes", '{"schema": "other"}'])
def test_json_replaces_nothing_that_is_not_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    assert isinstance(act(tmp_path, "--json", tmp_path / "mine.json").exception, InputError)
    assert (tmp_path / "mine.json").read_text() == content


def test_json_is_never_written_over_an_input(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_text('{"schema": "gguf-golf/act"}')
    assert isinstance(act(model, "--json", model).exception, InputError)


def test_every_command_has_json_unless_it_talks_or_hands_over() -> None:
    without = {name for name, command in cli.cli.commands.items() if not takes_json(command)}
    assert without == {"chat", "rpc-server", "serve", "tool"}


def takes_json(command: click.Command) -> bool:
    if isinstance(command, click.Group):
        return all(takes_json(child) for child in command.commands.values())
    return any("--json" in param.opts for param in command.params)


def test_verbose_shows_where_an_error_arose(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gguf_golf", "inspect", str(tmp_path)]
    short = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (short.returncode, len(short.stderr.splitlines())) == (1, 1)
    long = subprocess.run([*command, "-v"], capture_output=True, text=True, check=False)
    assert "Traceback" in long.stderr and long.stderr.splitlines()[-1] == short.stderr.splitlines()[-1]


def test_what_is_neither_here_nor_a_hub_id_does_not_exist() -> None:
    for name in ("absent.gguf", "./some/folder", "models/absent.gguf", "/absent"):
        with pytest.raises(InputError, match="does not exist: give a Hugging Face folder or a GGUF file"):
            locate(name)


def test_a_hub_id_names_the_command_that_downloads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"gguf-golf\[hub\].*hf download some/model --local-dir model"):
        locate("some/model")


def test_a_hub_that_cannot_be_reached_names_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"\(no route to the hub\).*hf download some/model --local-dir model"):
        locate("some/model")


def test_a_folder_becomes_a_gguf_once(tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gguf_golf.quantize.cached.cache_dir", lambda: tmp_path)
    made = as_gguf(tiny_dir)
    assert made.read_bytes()[:4] == b"GGUF"
    monkeypatch.setattr("gguf_golf.quantize.cached.convert", lambda *_, **__: pytest.fail("converted twice"))
    assert as_gguf(tiny_dir) == made


def test_any_part_of_a_split_model_names_its_first(tiny: Callable[[str], Path]) -> None:
    assert as_gguf(Path("x/m-00003-of-00004.gguf")) == Path("x/m-00001-of-00004.gguf")
    assert as_gguf(tiny("q8_0")) == tiny("q8_0")


def test_verbose_shows_llama_cpps_log(tiny: Callable[[str], Path]) -> None:
    command = [sys.executable, "-m", "gguf_golf", "run", str(tiny("q8_0")), "-p", "The", "-n", "1", "--threads", "1"]
    quiet = subprocess.run([*command, "-q"], capture_output=True, text=True, check=True)
    verbose = subprocess.run([*command, "-v"], capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
    assert "llama.cpp: " in verbose.stderr and "general.architecture" in verbose.stderr
    assert verbose.stdout == quiet.stdout
