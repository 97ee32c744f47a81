"""llama.cpp's RPC backend with our types: logits and speed of one model over several servers, against this process.

    python eval/experiments/rpc.py serve 127.0.0.1:50052 --threads 1
    python eval/experiments/rpc.py compare small.gguf TEXT 127.0.0.1:50052 127.0.0.1:50053

The backend is compiled here from the runtime's own source against its libraries. Servers say in the patch number of
their protocol which TCQ format they know: llama.cpp's own are 0. `compare` asks for it first, as a server that is sent
a type which it does not know drops the connection, and then llama.cpp ends the client's process.
"""

import argparse
import ctypes
import os
import re
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.errors import InputError
from gguf_golf.runtime import library, load
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.runtime.source import source_dir

PROTOCOL, TCQ_FORMAT = 7, 1
CPU_DEVICE, HELLO, CAPABILITIES = 0, 14, 24  # ggml_backend_dev_type, rpc_cmd, RPC_CONN_CAPS_SIZE
N_TOKENS, N_GENERATED = 128, 32


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("endpoint")
    serving.add_argument("--threads", type=int, default=1)
    comparing = commands.add_parser("compare")
    comparing.add_argument("model", type=Path)
    comparing.add_argument("text", type=Path)
    comparing.add_argument("endpoints", nargs="+")
    comparing.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    {"serve": serve, "compare": compare}[given.command](given)


def serve(given: argparse.Namespace) -> None:
    """Offer this machine's CPU until the process is ended."""
    rpc, ggml = backend(), library.libggml()
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    devices = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(CPU_DEVICE))
    rpc.ggml_backend_rpc_start_server.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_void_p,
    ]
    rpc.ggml_backend_rpc_start_server(given.endpoint.encode(), None, given.threads, 1, devices)


def compare(given: argparse.Namespace) -> None:
    """The same tokens here and over the servers: largest difference of a logit, tokens per second."""
    for endpoint in given.endpoints:
        check(endpoint)
    here, speeds_here = logits(given, {"mapped": True})
    rpc, ggml = backend(), library.libggml()
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    for endpoint in given.endpoints:
        ggml.ggml_backend_register(rpc.ggml_backend_rpc_add_server(endpoint.encode()))
    there, speeds_there = logits(given, {})
    print(f"{given.model.name}, {len(given.endpoints)} servers: largest difference {np.abs(here - there).max():.3g}")
    for what, speeds in (("here", speeds_here), ("there", speeds_there)):
        print(f"{what}: prompt {speeds[0]:.1f}, generation {speeds[1]:.1f} tokens/s")


def logits(given: argparse.Namespace, options: dict[str, bool]) -> tuple[np.ndarray, tuple[float, float]]:
    """Logits f32 [N_TOKENS, n_vocab] of the text's first tokens, and tokens per second at once and one by one."""
    with LoadedModel(given.model, **options) as model:
        tokens = with_bos(model, text_chunks(model, given.text, N_TOKENS, 1)[0])
        positions, all_of_them = np.arange(N_TOKENS, dtype=np.int32), np.ones(N_TOKENS, bool)
        with model.context(N_TOKENS + N_GENERATED, threads=given.threads) as context:
            context.decode(tokens, positions, all_of_them)  # weights arrive, pages are touched
            context.clear()
            started = time.monotonic()
            found = context.decode(tokens, positions, all_of_them).copy()
            prompt = N_TOKENS / (time.monotonic() - started)
            started, token = time.monotonic(), int(found[-1].argmax())
            for position in range(N_TOKENS, N_TOKENS + N_GENERATED):
                last = context.decode(np.array([token], np.int32), np.array([position], np.int32), np.ones(1, bool))
                token = int(last[0].argmax())
            return found, (prompt, N_GENERATED / (time.monotonic() - started))


def check(endpoint: str) -> None:
    """Raise InputError unless the server speaks this protocol and knows this TCQ format: the HELLO of ggml-rpc.cpp."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(struct.pack("<BQ", HELLO, CAPABILITIES) + bytes(CAPABILITIES))
            reply = b""
            while len(reply) < 8 + 4 + CAPABILITIES and (data := connection.recv(64)):
                reply += data
    except OSError as error:
        raise InputError(f"no RPC server answers at {endpoint} ({error})") from None
    major, _, patch = reply[8:11] or (0, 0, 0)
    if (major, patch) != (PROTOCOL, TCQ_FORMAT):
        raise InputError(
            f"{endpoint} is not a server of this gguf-golf (protocol {major}, TCQ format {patch}; {PROTOCOL} and "
            f"{TCQ_FORMAT} are needed): start it from the same version"
        )


def backend() -> ctypes.CDLL:
    """libggml-rpc of the runtime in use, compiled on first use."""
    load()  # with its libraries
    lib, ours = library.folder(), Path(tempfile.gettempdir()) / f"gguf-golf-rpc-{os.getuid()}-{TCQ_FORMAT}"
    target = ours / f"libggml-rpc-{library.folder().parent.name}.so"
    if not target.is_file():
        source = source_dir() / "ggml"
        ours.mkdir(mode=0o700, exist_ok=True)
        header = (source / "include/ggml-rpc.h").read_text()
        numbered = re.sub(r"(PROTO_PATCH_VERSION\s+)0\b", rf"\g<1>{TCQ_FORMAT}", header)
        (ours / "ggml-rpc.h").write_text(numbered)
        sources = [source / "src/ggml-rpc" / name for name in ("ggml-rpc.cpp", "transport.cpp")]
        folders = [f"-I{ours}", f"-I{source}/include", f"-I{source}/src", f"-I{source}/src/ggml-rpc"]
        defines = ["-DGGML_SHARED", "-DGGML_BACKEND_SHARED", "-DGGML_BACKEND_BUILD"]
        link = [f"-L{lib}", "-lggml-base", f"-Wl,-rpath,{lib}"]
        options = ["-O2", "-std=c++17", "-fPIC", "-shared"]
        partial = target.with_suffix(f".{os.getpid()}")
        subprocess.run(["g++", *options, *defines, *folders, *sources, *link, "-o", partial], check=True)
        partial.rename(target)
    return ctypes.CDLL(str(target))


if __name__ == "__main__":
    main()
