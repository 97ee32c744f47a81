"""What the pages say of `serve` and `tool`, run as written: but on a free port, as 8080 may be somebody's."""

import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT
from tests.docs.test_commands import FOLLOWED, commands, our_commands
from tests.evaluate.test_generate import TEMPLATE, with_template

GOLF = [sys.executable, "-m", "gguf_golf"]
PORT = "8080"


def written(command: str) -> list[list[str]]:
    """The arguments of every `gguf-golf COMMAND` of the pages, each once."""
    found = {tuple(words) for page in FOLLOWED for words in our_commands(ROOT / page) if words[0] == command}
    return [list(words) for words in sorted(found)]


@pytest.fixture(scope="module")
def folder(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    with_template(tiny("q8_0"), folder / "small.gguf", TEMPLATE)
    return folder


@contextmanager
def serving(arguments: list[str], folder: Path) -> Iterator[str]:
    """The port of the server that this command starts: a free one in place of the one that it names, or of 8080."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    named = arguments.index("--port") + 1 if "--port" in arguments else None
    words = [port if at == named else word for at, word in enumerate(arguments)]
    words[2:2] = [] if named else ["--port", port]
    process = subprocess.Popen(
        [*GOLF, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60).close()
                break
            except OSError:
                time.sleep(0.05)
        assert process.poll() is None, f"{words} ended"
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("arguments", written("serve"), ids=shlex.join)
def test_servers_answer_the_pages_request(
    arguments: list[str], folder: Path, llama_tool: Callable[[str], Path]
) -> None:
    llama_tool("llama-server")
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (request,) = (line for line in commands(ROOT / "docs" / "daily.md") if line.startswith("curl "))
    assert f":{PORT}/" in request
    with serving(arguments, folder) as port:
        command = [*shlex.split(request.replace(f":{PORT}/", f":{port}/")), "--silent"]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(said.stdout)["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize("arguments", written("tool"), ids=shlex.join)
def test_tools_run(arguments: list[str], folder: Path, llama_tool: Callable[[str], Path]) -> None:
    llama_tool("llama-bench")
    done = subprocess.run([*GOLF, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    # llama-quantize ends its --help with 1
    assert done.returncode == (1 if "--help" in arguments else 0), done.stderr
    assert ("usage: " if "--help" in arguments else "t/s") in done.stdout
