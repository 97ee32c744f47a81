"""Models over several machines: llama.cpp's RPC servers as devices of this process, and this machine as such a server.

A server that does not know a type drops the connection, and llama.cpp then ends this process. So servers are asked
first what they are. They serve one client at a time, and trust whoever reaches them.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence

from gguf_golf.errors import InputError
from gguf_golf.runtime import abi, library
from gguf_golf.runtime.rpc_backend import PATCH_NUMBER

VARIABLE = "GGUF_GOLF_RPC"
"""Names the servers to this process and its children."""

PROTOCOL, MAX_SERVERS = (7, 0), 16  # RPC_PROTO_MAJOR_VERSION, _MINOR_VERSION and GGML_RPC_MAX_SERVERS of ggml-rpc.h
HELLO, CAPABILITIES = 14, 24  # RPC_CMD_HELLO and RPC_CONN_CAPS_SIZE of ggml-rpc.cpp
CPU, GPU, IGPU = 0, 1, 2  # ggml_backend_dev_type

ANSWER_SECONDS = 10

PRELOAD = "DYLD_INSERT_LIBRARIES" if sys.platform == "darwin" else "LD_PRELOAD"


def use(endpoints: str) -> None:
    """Have the models that are loaded from now on compute on servers, "host:port,host:port".

    Raises InputError for a server that does not answer, or is not of this gguf-golf.
    """
    each = endpoints.split(",")
    if len(each) > MAX_SERVERS:
        raise InputError(f"{len(each)} RPC servers: llama.cpp knows at most {MAX_SERVERS}")
    for endpoint in each:
        check(endpoint)
    os.environ[VARIABLE] = endpoints


def endpoints() -> list[str]:
    """The servers in use."""
    return [each for each in os.environ.get(VARIABLE, "").split(",") if each]


def check(endpoint: str) -> None:
    """Raise InputError unless a server of this protocol that knows this TCQ format answers: ggml-rpc.cpp's HELLO."""
    host, port = _address(endpoint)
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(struct.pack("<BQ", HELLO, CAPABILITIES) + bytes(CAPABILITIES))
            reply = b""
            while len(reply) < 8 + 4 + CAPABILITIES and (data := connection.recv(64)):
                reply += data
    except OSError as error:
        raise InputError(
            f"no RPC server answers at {endpoint} ({error}): start one with `gguf-golf rpc-server`; one that is busy "
            "with another client does not answer"
        ) from None
    found = (*reply[8:11], *[0] * 3)[:3]
    if found != (*PROTOCOL, PATCH_NUMBER):
        spoken = ".".join(map(str, found)) if any(found) else "something else"
        raise InputError(
            f"{endpoint} is not a server of this gguf-golf (it speaks {spoken}, not "
            f"{'.'.join(map(str, (*PROTOCOL, PATCH_NUMBER)))}): start `gguf-golf rpc-server` of the same version there"
        )


def connect() -> None:
    """Add the servers in use to ggml's devices; llama.cpp then spreads a model's layers over them by their memory."""
    for endpoint in endpoints():
        library.libggml().ggml_backend_register(_backend().ggml_backend_rpc_add_server(endpoint.encode()))


def for_program() -> tuple[list[str], dict[str, str]]:
    """Arguments and environment with which one of llama.cpp's programs uses the servers in use."""
    if not endpoints():
        return [], {}
    return ["--rpc", ",".join(endpoints())], {PRELOAD: str(library.rpc_backend())}


def serve(endpoint: str, threads: int, say: Callable[[str], None]) -> None:
    """Offer this machine's GPUs, or its CPU where the runtime has none, to clients until the process is ended.

    Raises InputError for an address that cannot be listened on.
    """
    host, port = _address(endpoint)
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise InputError(f"cannot listen on {endpoint} ({os.strerror(error.errno or 0)})") from None
    ggml, backend = library.libggml(), _backend()
    found = [ggml.ggml_backend_dev_get(index) for index in range(ggml.ggml_backend_dev_count())]
    kinds: Sequence[int] = [ggml.ggml_backend_dev_type(device) for device in found]
    wanted = (GPU, IGPU) if GPU in kinds or IGPU in kinds else (CPU,)
    chosen = [device for device, kind in zip(found, kinds, strict=True) if kind in wanted]
    say(f"an RPC server of {len(chosen)} {'CPU' if wanted == (CPU,) else 'GPU'} at {endpoint} (Ctrl-C stops it)")
    devices = (ctypes.c_void_p * len(chosen))(*chosen)
    backend.ggml_backend_rpc_start_server(endpoint.encode(), None, threads, len(chosen), ctypes.addressof(devices))


def _address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f"{endpoint!r} is no address of an RPC server: give HOST:PORT")
    return host, int(port)


def _backend() -> ctypes.CDLL:
    library.libggml()  # with what it stands on
    return abi.declare(ctypes.CDLL(str(library.rpc_backend())), abi.RPC)
