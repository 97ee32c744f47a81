"""`gguf-golf serve` and `gguf-golf tool`: the patched llama.cpp's programs, and the chat page in a real Chromium."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gguf_golf.errors import InputError
from gguf_golf.use import serve as serve_module
from gguf_golf.use.serve import find_tool, serve, serve_command

KEY = "not-a-secret"


@pytest.fixture(scope="module")
def server(chatty: Path, llama_tool: Callable[[str], Path]) -> Iterator[str]:
    """The address of a server that asks for KEY."""
    llama_tool("llama-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["serve", chatty, "--port", port, "--api-key", KEY, "--threads", 1, "--", "--parallel", 1]
    process = subprocess.Popen(
        [sys.executable, "-m", "gguf_golf", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=60).close()
            break
        except OSError:
            time.sleep(0.05)
    assert process.poll() is None, "llama-server ended"
    yield url
    process.terminate()
    process.wait()


def ask(url: str, key: str, origin: str = "") -> Any:
    body = {"messages": [{"role": "user", "content": "The city of"}], "max_tokens": 4, "temperature": 0}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers | ({"Origin": origin} if origin else {})
    )
    return urllib.request.urlopen(request, timeout=60)


def test_the_openai_endpoint_answers_whoever_has_the_key(server: str) -> None:
    with ask(server, KEY) as response:
        answer = json.load(response)
    assert answer["choices"][0]["message"]["content"].strip()
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, "another")
    assert refused.value.code == 401


def test_clients_see_the_models_name_and_no_path(server: str) -> None:
    request = urllib.request.Request(f"{server}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert [model["id"] for model in json.load(response)["data"]] == ["chatty"]


def test_other_web_pages_may_not_use_it_through_the_browser(server: str) -> None:
    with ask(server, KEY, "https://example.org") as response:
        assert response.headers["Access-Control-Allow-Origin"] is None


def test_the_chat_page_talks_and_stays_inside_the_screen(server: str, browser: Any) -> None:
    browser.get(server)
    for width in (320, 390, 1280):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    script = "document.getElementById(arguments[0]).value = arguments[1]"
    browser.execute_script(script, "tokens", "8")
    browser.execute_script(script, "prompt", "The city of " + "x" * 200)
    browser.find_element("id", "send").click()
    assert "API key" in wait_for(browser, ".error .text, .text.error")
    browser.execute_script(script, "key", KEY)
    browser.execute_script(script, "prompt", "The city of")
    browser.find_element("id", "send").click()
    assert wait_for(browser, ".assistant .text")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    own = browser.execute_script("return performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)")
    assert set(own) == {server}, "the page loads from its own server alone"


def wait_for(browser: Any, selector: str) -> str:
    while True:
        found = [element.text for element in browser.find_elements("css selector", selector)]
        if found and found[-1].strip() and browser.find_element("id", "send").text == "Send":
            return str(found[-1])
        time.sleep(0.05)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::"])
def test_the_network_needs_a_key(host: str) -> None:
    with pytest.raises(InputError, match=r"give an --api-key.*TLS"):
        serve(Path("m.gguf"), name="m", host=host, port=1, api_key=None, n_ctx=None, threads=1, extra=(), say=print)


def test_the_key_is_no_part_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(serve_module, "find_tool", lambda name, say: Path("/bin/llama-server"))
    monkeypatch.setattr(serve_module.os, "execve", lambda *arguments: ran.append(arguments))
    serve(
        Path("m.gguf"),
        name="m",
        host="::",
        port=80,
        api_key=KEY,
        n_ctx=None,
        threads=1,
        extra=(),
        say=lambda words: None,
    )
    _program, command, environment = ran[0]
    assert KEY not in " ".join(command) and environment["LLAMA_API_KEY"] == KEY


def test_options_of_the_user_come_last() -> None:
    command = serve_command(
        Path("s"), Path("m"), name="m", host="h", port=1, n_ctx=512, threads=2, extra=("--parallel", "4")
    )
    assert command[-2:] == ["--parallel", "4"]
    assert command[command.index("--ctx-size") + 1] == "512"


def test_tools_are_found_by_either_name(llama_tool: Callable[[str], Path]) -> None:
    assert find_tool("bench", print) == find_tool("llama-bench", print) == llama_tool("llama-bench")
    with pytest.raises(InputError, match=r"there is no program juggle; there are .*llama-server"):
        find_tool("juggle", print)


def test_a_tool_takes_its_own_options_and_exit_code(llama_tool: Callable[[str], Path]) -> None:
    llama_tool("llama-quantize")
    command = [sys.executable, "-m", "gguf_golf", "tool", "quantize"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert "TCQ3" in helped.stdout
    failed = subprocess.run([*command, "absent.gguf", "out.gguf", "Q8_0"], capture_output=True, text=True, check=False)
    assert failed.returncode != 0 and "gguf-golf" not in failed.stderr
