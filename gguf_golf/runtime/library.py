"""The built runtime, ready to use: the llama_cpp bindings on the patched libraries, and the built tools."""

import ctypes
import importlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from gguf_golf.errors import BuildError
from gguf_golf.runtime import abi, bindings, build, config, prebuilt
from gguf_golf.runtime import rpc_backend as rpc_library
from gguf_golf.runtime.config import Options

_OVERRIDE = "LLAMA_CPP_LIB_PATH"


@cache
def load() -> ModuleType:
    """The module `llama_cpp`, running on this checkout's patched libraries.

    A runtime that is missing, built from other patches, or built for another CPU is built first, with the options and
    components of this environment's last build. $LLAMA_CPP_LIB_PATH, which the bindings honor too, points to libraries
    to use as they are, without checks. Raises BuildError.
    """
    chosen = folder()
    if "llama_cpp" not in sys.modules:
        # for this import only: the link may be replaced by another process, and children must not inherit the override
        before = os.environ.get(_OVERRIDE)
        os.environ[_OVERRIDE] = str(chosen)
        path = prebuilt.BINDINGS if chosen.is_relative_to(prebuilt.FOLDER.resolve()) else bindings.import_path()
        if path is not None:
            sys.path.insert(0, str(path))
        try:
            importlib.import_module("llama_cpp")
        finally:
            del os.environ[_OVERRIDE]
            os.environ.update({} if before is None else {_OVERRIDE: before})
    module = sys.modules["llama_cpp"]
    loaded = Path(sys.modules["llama_cpp.llama_cpp"]._lib._name).resolve().parent
    if loaded != chosen:
        raise BuildError(
            f"llama_cpp was imported before gguf-golf could choose its libraries, and runs on {loaded} "
            f"instead of {chosen}: call gguf_golf.runtime.load() first"
        )
    return module


@cache
def libggml() -> ctypes.CDLL:
    """The patched libggml, through which all symbols of ggml-base and ggml-cpu are resolved. Raises BuildError."""
    path = folder() / ("libggml.dylib" if sys.platform == "darwin" else "libggml.so")
    try:
        return abi.declare(ctypes.CDLL(str(path)), abi.GGML)
    except (OSError, AttributeError) as error:
        raise BuildError(f"{path} does not fit this gguf-golf ({error}): run `gguf-golf runtime build`") from None


def tool(name: str) -> Path:
    """The built program `name` (`llama-quantize`, `test-backend-ops`, ...); see build.COMPONENTS for all.

    Raises BuildError, naming the command that builds it, when it is not there.
    """
    runtime = current()
    for component in ("tools", "tests"):
        if name in build.COMPONENTS[component].targets:
            path = runtime / component / name
            if path.is_file():
                return path
            raise BuildError(f"{name} is not built: run `gguf-golf runtime build --{component}`")
    raise BuildError(f"the runtime has no program called {name}")


def rpc_backend() -> Path:
    """The library of llama.cpp's RPC backend, compiled where it is missing. Raises BuildError."""
    runtime = current()
    if not (runtime / "rpc").is_dir():
        runtime = make(Options(**manifest(runtime)["options"]), ("lib", "rpc"))
    return runtime / "rpc" / rpc_library.NAME


def current() -> Path:
    """The folder of this checkout's runtime, built if necessary."""
    runtime = present()
    if runtime is None:
        return make(Options())
    made = manifest(runtime)
    if fits(made):
        return runtime
    return make(Options(**made["options"]), tuple(name for name in build.COMPONENTS if (runtime / name).is_dir()))


def present() -> Path | None:
    """The runtime that is here without building: the linked one, or one of a binary wheel that runs on this CPU."""
    runtime, shipped = bindings.linked(), prebuilt.RUNTIME
    if runtime is not None or not shipped.is_dir():
        return runtime
    try:
        return shipped if fits(manifest(shipped)) else None
    except BuildError:  # the CPU lacks what it needs
        return None


def fits(made: dict[str, Any]) -> bool:
    """Whether a runtime of this manifest is one of this checkout's patches, for this CPU."""
    return all(made.get(name) == value for name, value in config.ingredients(Options(**made["options"])).items())


def make(options: Options, components: tuple[str, ...] = ("lib",)) -> Path:
    """Install the bindings, build the runtime if it is missing, and link the two. Returns the runtime's folder."""
    bindings.ensure_installed()
    runtime = build.build(options, components)
    bindings.link(runtime)
    return runtime


def manifest(runtime: Path) -> dict[str, Any]:
    """What the runtime in this folder was built from: config.ingredients() and the compiler.

    Raises BuildError for a file that cannot be read.
    """
    path = runtime / "manifest.json"
    try:
        made = cast(dict[str, Any], json.loads(path.read_text()))
        Options(**made["options"])
        return made
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BuildError(f"{path} cannot be read ({error}): delete {runtime}, and it is built again") from None


@cache
def folder() -> Path:
    """Where this process loads its libraries from: decided once, so that ggml and llama stay of one build.

    Raises BuildError.
    """
    override = os.environ.get(_OVERRIDE)
    return (Path(override) if override else current() / "lib").resolve()
