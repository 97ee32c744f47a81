"""The stock llama-cpp-python bindings of this Python environment, and which runtime they are linked to.

The link is `lib` inside the installed `llama_cpp` package, where the bindings look for their libraries. So each
environment chooses for itself, and `import llama_cpp` works in programs that know nothing of gguf-golf. Where the
environment is read-only, a copy of the bindings in the cache serves gguf-golf alone.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from gguf_golf.errors import BuildError
from gguf_golf.files import locked
from gguf_golf.runtime import pin
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.source import pip, sdist, verify


def ensure_installed() -> None:
    """Install the pinned bindings, without libraries, when there are none that can be linked.

    Raises BuildError when this environment has another version: changing a package that others may use is not ours to
    decide.
    """
    with locked(_own_copy(), wait=True):
        if _linkable() is None:
            archive = sdist()
            verify(archive)
            if _installed() is None and _is_writable(_site_packages()):
                _install(archive)
            else:
                _install_own_copy(archive)
            importlib.invalidate_caches()
    if _linkable() == _installed() and (found := importlib.metadata.version("llama-cpp-python")) != pin.VERSION:
        raise BuildError(
            f"{sys.prefix} has llama-cpp-python {found}, and the runtime is built for {pin.VERSION}: "
            "run `pip uninstall llama-cpp-python` there, or use a virtual environment of its own"
        )


def import_path() -> Path | None:
    """What has to be on sys.path for `import llama_cpp` to find these bindings; None where they are installed."""
    return None if _package() in (None, _installed()) else _own_copy()


def link(runtime: Path) -> None:
    """Make `runtime` (a folder that build() returned) the one that this environment's bindings load."""
    package = _linkable()
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
    """The runtime that this environment's bindings are linked to; None if there is none (any more)."""
    package = _package()
    if package is None or not (package / "lib").is_symlink() or not (package / "lib").is_dir():
        return None
    return (package / "lib").readlink().parent


def _package() -> Path | None:
    """The package `llama_cpp` that gguf-golf imports; None when there is none yet."""
    installed = _installed()
    is_linked = installed is not None and (installed / "lib").is_symlink()
    return _linkable() or (installed if is_linked else None)


def _linkable() -> Path | None:
    """The package `llama_cpp` that a link can be put into: the installed one, or our copy where that is read-only."""
    installed = _installed()
    if installed is not None and _is_writable(installed):
        return installed
    own = _own_copy() / "llama_cpp"
    return own if own.is_dir() else None


def _install(archive: Path, *options: str | Path) -> None:
    env = os.environ | {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF"}
    what = "installing the llama-cpp-python bindings"
    pip("install", "--no-deps", "--no-build-isolation", *options, archive, what=what, env=env)


def _install_own_copy(archive: Path) -> None:
    own = _own_copy()
    with tempfile.TemporaryDirectory(dir=own.parent, prefix=".") as folder:
        _install(archive, "--target", Path(folder) / own.name)
        (Path(folder) / own.name).rename(own)


def _installed() -> Path | None:
    """Where `llama_cpp` is installed. It cannot be imported to find out: importing loads the libraries."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.origin or Path(spec.origin).is_relative_to(_own_copy()):
        return None
    return Path(spec.origin).parent


def _own_copy() -> Path:
    """The folder of the cache that holds a copy of the bindings for read-only environments."""
    return cache_dir() / "bindings" / pin.VERSION


def _site_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
