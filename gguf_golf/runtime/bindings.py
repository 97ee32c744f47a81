"""The stock llama-cpp-python bindings of this Python environment, and which runtime they are linked to.

The link is `lib` inside the installed `llama_cpp` package, where the bindings look for their libraries. So each
environment chooses for itself, and `import llama_cpp` works in programs that know nothing of gguf-golf.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from gguf_golf.errors import BuildError
from gguf_golf.runtime import pin
from gguf_golf.runtime.cache import cache_dir, locked
from gguf_golf.runtime.source import pip, sdist, verify


def ensure_installed() -> None:
    """Install the pinned bindings, without libraries, when this environment has none.

    Raises BuildError when it has another version: changing a package that others may use is not ours to decide.
    """
    with locked(cache_dir() / "bindings"):
        if _package() is None:
            archive = sdist()
            verify(archive)
            env = os.environ | {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF"}
            what = "installing the llama-cpp-python bindings"
            pip("install", "--no-deps", "--no-build-isolation", archive, what=what, env=env)
            importlib.invalidate_caches()
    found = importlib.metadata.version("llama-cpp-python")
    if found != pin.VERSION:
        raise BuildError(
            f"{sys.prefix} has llama-cpp-python {found}, and the runtime is built for {pin.VERSION}: "
            "run `pip uninstall llama-cpp-python` there, or use a virtual environment of its own"
        )


def link(runtime: Path) -> None:
    """Make `runtime` (a folder that build() returned) the one that this environment's bindings load."""
    package = _package()
    assert package is not None, "ensure_installed() comes first"
    place = package / "lib"
    if place.is_dir() and not place.is_symlink():
        raise BuildError(
            f"{place} holds libraries of a stock llama-cpp-python: run `pip uninstall llama-cpp-python` "
            "in this environment and try again, or use a virtual environment of its own"
        )
    aside = package / f".lib.{os.getpid()}"
    aside.symlink_to(runtime / "lib", target_is_directory=True)
    aside.replace(place)


def linked() -> Path | None:
    """The runtime that this environment's bindings are linked to; None when there is none (any more)."""
    package = _package()
    if package is None or not (package / "lib").is_symlink() or not (package / "lib").is_dir():
        return None
    return (package / "lib").readlink().parent


def _package() -> Path | None:
    """Where `llama_cpp` is installed. It cannot be imported to find out: importing loads the libraries."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.origin:
        return None
    return Path(spec.origin).parent
