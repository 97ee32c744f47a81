"""gguf-golf: the best GGUF that fits in N bytes, and the proof beside it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gguf-golf")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
