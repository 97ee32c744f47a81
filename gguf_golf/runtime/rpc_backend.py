"""Compile llama.cpp's RPC backend, which the other libraries do without, as a library of its own: some seconds.

It registers itself where it is loaded. Its servers say in the patch number of their protocol which TCQ format they
know, by which `rpc.check` tells them apart: upstream's says 0.
"""

import re
from pathlib import Path

from gguf_golf.formats.tcq import FORMAT_VERSION
from gguf_golf.runtime import config, process

NAME = "libggml-rpc.so"
PATCH_NUMBER = 100 + FORMAT_VERSION

_DEFINES = ("GGML_BACKEND_SHARED", "GGML_BACKEND_BUILD", "GGML_SHARED", "NDEBUG")

# ggml would load it by $GGML_BACKEND_PATH, too, but llama.cpp's programs look for it before they do that
_REGISTER = """\
#include "ggml-backend.h"
#include "ggml-rpc.h"

__attribute__((constructor)) static void register_rpc() { ggml_backend_register(ggml_backend_rpc_reg()); }
"""


def compile_backend(source: Path, lib: Path, folder: Path) -> None:
    """Compile it from a patched llama.cpp into `folder`, against the libraries in `lib`. Raises BuildError."""
    ggml = source / "ggml"
    folder.mkdir(parents=True, exist_ok=True)
    header = (ggml / "include" / "ggml-rpc.h").read_text(encoding="utf-8")
    numbered = re.sub(r"(#define RPC_PROTO_PATCH_VERSION\s+)\d+", rf"\g<1>{PATCH_NUMBER}", header)
    (folder / "ggml-rpc.h").write_text(numbered, encoding="utf-8")
    (folder / "register.cpp").write_text(_REGISTER, encoding="utf-8")
    command = [
        *config.cxx(),
        *("-O2", "-std=c++17", "-fPIC", "-shared", "-pthread"),
        *(f"-D{name}" for name in _DEFINES),
        *(f"-I{each}" for each in (folder, ggml / "include", ggml / "src", ggml / "src" / "ggml-rpc")),
        *(ggml / "src" / "ggml-rpc" / name for name in ("ggml-rpc.cpp", "transport.cpp")),
        folder / "register.cpp",
        *(f"-L{lib}", "-lggml", "-lggml-base", f"-Wl,-rpath,{config.ORIGIN}/../lib"),
        *("-o", folder / NAME),
    ]
    process.run(command, "building llama.cpp (rpc)", folder / "build.log")
