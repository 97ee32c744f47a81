"""The built runtime, ready to use: the llama_cpp bindings on the patched libraries, and the built tools."""

import ctypes
import importlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

from gguf_golf.errors import BuildError
from gguf_golf.runtime import bindings, build, config
from gguf_golf.runtime.config import Options


@cache
def load() -> ModuleType:
    """The module `llama_cpp`, running on this checkout's patched libraries.

    A runtime that is missing, made from other patches, or made for another CPU is built first, with the options
    and components that this environment's last build had. $LLAMA_CPP_LIB_PATH, which the bindings know too, names
    a folder of libraries to take unseen instead. Raises BuildError.
    """
    override = os.environ.get("LLAMA_CPP_LIB_PATH")
    folder = Path(override).resolve() if override else current() / "lib"
    if "llama_cpp" in sys.modules:
        return _already_imported(folder)
    # _ggml.py knows no LLAMA_CPP_LIB_PATH and would follow the link, which another process may just be changing
    sys.modules["llama_cpp._ggml"] = cast(ModuleType, SimpleNamespace(libggml=_open(folder, "ggml")))
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    try:
        return importlib.import_module("llama_cpp")
    finally:
        # not for children: to them it would be an override
        if override is None:
            del os.environ["LLAMA_CPP_LIB_PATH"]


def libggml() -> ctypes.CDLL:
    """The patched libggml, through which all symbols of ggml-base and ggml-cpu are found."""
    load()
    return cast(ctypes.CDLL, sys.modules["llama_cpp._ggml"].libggml)


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


def current() -> Path:
    """The folder of this checkout's runtime, built when need be."""
    runtime = bindings.linked()
    if runtime is None:
        return make(Options())
    made = manifest(runtime)
    options = Options(**made["options"])
    if all(made.get(name) == value for name, value in config.ingredients(options).items()):
        return runtime
    return make(options, tuple(name for name in build.COMPONENTS if (runtime / name).is_dir()))


def make(options: Options, components: tuple[str, ...] = ("lib",)) -> Path:
    """Install the bindings, build the runtime where it is missing, and link the two. Returns the runtime's folder."""
    bindings.ensure_installed()
    runtime = build.build(options, components)
    bindings.link(runtime)
    return runtime


def manifest(runtime: Path) -> dict[str, Any]:
    """What the runtime in this folder was made from: config.ingredients() and the compiler."""
    return cast(dict[str, Any], json.loads((runtime / "manifest.json").read_text()))


def _already_imported(folder: Path) -> ModuleType:
    module = sys.modules["llama_cpp"]
    loaded = Path(sys.modules["llama_cpp._ggml"].libggml._name).resolve().parent
    if loaded != folder.resolve():
        raise BuildError(
            f"llama_cpp was imported before gguf-golf could choose its libraries, and runs on {loaded} "
            f"instead of {folder}: call gguf_golf.runtime.library.load() first"
        )
    return module


def _open(folder: Path, name: str) -> ctypes.CDLL:
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    path = folder / f"lib{name}{suffix}"
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} cannot be loaded: {error}") from None
