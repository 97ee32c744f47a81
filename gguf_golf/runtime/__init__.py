"""The patched llama.cpp: pinned, fetched, patched, built, loaded. Imports no pipeline room."""

from gguf_golf.runtime.library import load, tool

__all__ = ["load", "tool"]
