"""What several rooms' tests need: the embedded model as GGUF files, its demo text, and llama.cpp's built programs."""

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import settings

from gguf_golf.errors import BuildError
from gguf_golf.quantize.convert import convert
from gguf_golf.runtime import tool

DATA = Path(str(files("gguf_golf"))) / "data"
THREADS = 2

settings.register_profile("no clock", deadline=None)  # no test fails because the machine is busy
settings.load_profile("no clock")


@pytest.fixture(scope="session")
def tiny_dir() -> Path:
    """The embedded model, a Hugging Face directory."""
    return DATA / "golf-tiny"


@pytest.fixture(scope="session")
def demo_text() -> Path:
    return DATA / "demo" / "demo.txt"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path) -> Callable[[str], Path]:
    """tiny("q4_k") is golf-tiny as a GGUF of that type, converted once a session."""
    folder = tmp_path_factory.mktemp("golf-tiny")

    def make(type_name: str) -> Path:
        path = folder / f"golf-tiny-{type_name}.gguf"
        if not path.exists():
            convert(tiny_dir, path, type_name=type_name, threads=THREADS, progress=False)
        return path

    return make


@pytest.fixture(scope="session")
def llama_tool() -> Callable[[str], Path]:
    """llama_tool("llama-perplexity") is the built program; the test is skipped where it was not built."""

    def find(name: str) -> Path:
        override = os.environ.get("LLAMA_CPP_LIB_PATH")
        if override and (Path(override) / name).is_file():
            return Path(override) / name
        try:
            return tool(name)
        except BuildError as error:
            pytest.skip(f"needs {name}: {error}")

    return find


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty evaluation cache for one test (the built runtime stays where it is)."""
    monkeypatch.setattr("gguf_golf.evaluate.evaluate.cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache"
