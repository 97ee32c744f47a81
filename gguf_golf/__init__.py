"""gguf-golf: the best GGUF that fits in N bytes, and the proof beside it.

    import gguf_golf as gg

    gg.convert("./MyModel", "base.gguf")
    gg.fit("./MyModel", "60MB", "small.gguf")

The functions are documented in docs/python.md. They are loaded when they are first used.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gguf_golf.errors import BuildError, DataError, GolfError, InputError

if TYPE_CHECKING:
    from gguf_golf.api import (
        convert,
        evaluate,
        fit,
        imatrix,
        inspect,
        load,
        plan,
        quantize,
        report,
        sensitivity,
        tune,
    )
    from gguf_golf.evaluate.engine import Peer

__all__ = [
    "BuildError",
    "DataError",
    "GolfError",
    "InputError",
    "Peer",
    "convert",
    "evaluate",
    "fit",
    "imatrix",
    "inspect",
    "load",
    "plan",
    "quantize",
    "report",
    "sensitivity",
    "tune",
]

try:
    __version__ = version("gguf-golf")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"

_MODULES = ("evaluate", "fit", "plan", "quantize", "report", "sensitivity", "tune")
"""Functions of the API with the name of a module of ours: the module itself is called."""


class _Callable(ModuleType):
    """A module that is called as the function of the API that has its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.__wrapped__(*arguments, **options)

    @property
    def __wrapped__(self) -> Any:
        """The function: `help` and `inspect.signature` look for it here."""
        return getattr(import_module("gguf_golf.api"), self.__name__.removeprefix("gguf_golf."))


class _Package(ModuleType):
    """This package: its modules become callable as they are bound to it, which is the last step of their import."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _MODULES and type(value) is ModuleType:
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"gguf_golf.{name}")
    if name in __all__:
        return getattr(import_module("gguf_golf.api"), name)
    raise AttributeError(f"module 'gguf_golf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
