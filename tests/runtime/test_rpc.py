"""Models over llama.cpp's RPC servers: told apart first, the logits of one process, a lost one named."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gguf_golf import cli
from gguf_golf.errors import InputError
from gguf_golf.runtime import library, rpc
from gguf_golf.runtime.rpc_backend import PATCH_NUMBER
from gguf_golf.runtime.session import GAVE_UP
from gguf_golf.runtime.source import source_dir

LOGITS = """
import os, signal, sys
import numpy as np
from gguf_golf.runtime import rpc
from gguf_golf.runtime.session import LoadedModel, captured_log
model, out, servers, kill = sys.argv[1:]
if servers:
    rpc.use(servers)
tokens, positions = np.arange(1, 33, dtype=np.int32), np.arange(32, dtype=np.int32)
with captured_log() as log, LoadedModel(model, mapped=not servers) as loaded, loaded.context(32, threads=1) as context:
    if kill:
        os.kill(int(kill), signal.SIGKILL)
    np.save(out, context.decode(tokens, positions, np.ones(32, bool)))
print(*(line for line in "".join(log).splitlines() if "model buffer size" in line), sep="\\n")
"""


@pytest.fixture
def answering() -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (bytes(8) + bytes([7, 0, 0]) + bytes(25), r"it speaks 7\.0\.0, not"),
        (bytes(8) + bytes([8, 0, PATCH_NUMBER]) + bytes(25), r"it speaks 8\.0\."),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(20), "it speaks"),
        (b"", "it speaks something else"),
    ],
    ids=["upstream's", "a newer one", "HTTP", "silence"],
)
def test_a_server_that_does_not_know_the_types_is_told_apart(reply, words, answering):
    listening, address = answering

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(64)
            connection.sendall(reply)

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(InputError, match=f"{address} is not a server of this gguf-golf .{words}"):
        rpc.use(address)
    assert not rpc.endpoints()


def test_servers_that_cannot_be_used_are_refused_by_name(answering, monkeypatch):
    monkeypatch.setattr(rpc, "ANSWER_SECONDS", 0.1)
    _, busy = answering
    with pytest.raises(InputError, match=f"no RPC server answers at {busy} .timed out.*busy"):
        rpc.use(busy)
    for address in ("host", "host:", ":50052", "host:0", "host:65536", "127.0.0.1:50052,"):
        with pytest.raises(InputError, match=r"give HOST:PORT|no RPC server answers"):
            rpc.use(address)
    with pytest.raises(InputError, match=r"17 RPC servers: llama\.cpp knows at most 16"):
        rpc.use(",".join([busy] * 17))
    with pytest.raises(InputError, match=f"cannot listen on {busy} .Address already in use"):
        rpc.serve(busy, 1, print)


def test_servers_are_for_one_process(tmp_path):
    (tmp_path / "a.gguf").touch()
    given = ["eval", str(tmp_path / "a.gguf"), "--rpc", "127.0.0.1:9", "--executor", "joblib"]
    result = CliRunner().invoke(cli.cli, given)
    assert result.exit_code == 2 and "without --executor" in result.output


def test_llamas_own_programs_are_given_the_servers_and_the_backend(monkeypatch):
    monkeypatch.delenv(rpc.VARIABLE, raising=False)
    assert rpc.for_program() == ([], {})
    monkeypatch.setenv(rpc.VARIABLE, "a:1,b:2")
    monkeypatch.setattr(library, "rpc_backend", lambda: Path("/runtime/rpc/libggml-rpc.so"))
    assert rpc.for_program() == (["--rpc", "a:1,b:2"], {rpc.PRELOAD: "/runtime/rpc/libggml-rpc.so"})


def test_the_protocol_is_the_pinned_ones():
    header = (source_dir() / "ggml/include/ggml-rpc.h").read_text()
    numbers = dict(re.findall(r"#define (\w+)\s+(\d+)", header))
    major, minor = (int(numbers[f"RPC_PROTO_{name}_VERSION"]) for name in ("MAJOR", "MINOR"))
    assert ((major, minor), int(numbers["GGML_RPC_MAX_SERVERS"])) == (rpc.PROTOCOL, rpc.MAX_SERVERS)


@pytest.fixture
def servers() -> Iterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    """Two servers on loopback: address and process."""
    started = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "gguf_golf", "rpc-server", address, "--threads", "1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append((address, process))
    for address, process in started:
        while process.poll() is None:
            try:
                rpc.check(address)
                break
            except InputError:
                time.sleep(0.05)
    yield started
    for _, process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_two_servers_compute_what_one_process_computes_and_a_lost_one_is_named(tiny, servers, tmp_path):
    addresses, (_, last) = ",".join(address for address, _ in servers), servers[-1]

    def logits(name: str, where: str, kill: str = "") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", LOGITS, str(tiny("tcq3")), str(tmp_path / name), where, kill]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    here, there = logits("here.npy", ""), logits("there.npy", addresses)
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    assert all(f"[{address}] model buffer size" in there.stdout for address, _ in servers)
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
    lost = logits("lost.npy", addresses, str(last.pid))
    assert lost.returncode == GAVE_UP
    assert f"a server of {addresses.replace(',', ', ')} is lost" in lost.stderr
