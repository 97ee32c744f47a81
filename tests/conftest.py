"""What several rooms' tests need: the embedded model as GGUF files, its demo text, and llama.cpp's built programs."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import settings

from gguf_golf.errors import BuildError
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import Job
from gguf_golf.runtime import tool

try:
    from selenium import webdriver
except ImportError:
    webdriver = None

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

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
            convert(tiny_dir, path, type_name=type_name, job=Job(threads=THREADS, progress=False))
        return path

    return make


@pytest.fixture
def with_experts(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """with_experts(n_expert=3, n_used=1) is a golf-tiny whose feed-forward layers are noisy copies behind a router.

    Half of the router's rows are the others' negatives, so that one of each pair scores above zero, and an odd last row
    is zero: while `n_used` is no more than the number of pairs, its expert is never chosen.
    """

    def make(n_expert: int, n_used: int, n_layers: int = 4) -> Path:
        path = tmp_path / f"experts-{n_expert}-{n_used}-{n_layers}.gguf"
        reader, writer = gguf.GGUFReader(tiny("f32")), gguf.GGUFWriter(path, "llama")
        rng = np.random.default_rng(7)
        for field in reader.fields.values():
            if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "llama.block_count"):
                sub_type = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
        writer.add_block_count(n_layers)
        writer.add_expert_count(n_expert)
        writer.add_expert_used_count(n_used)
        for tensor in reader.tensors:
            block, kind = tensor.name.rsplit(".", 2)[0], tensor.name.rsplit(".", 2)[-2]
            if block.startswith("blk.") and int(block.split(".")[1]) >= n_layers:
                continue
            if kind in ("ffn_gate", "ffn_up", "ffn_down"):
                noise = rng.normal(1, 0.3, (n_expert, *tensor.data.shape))
                writer.add_tensor(f"{block}.{kind}_exps.weight", (tensor.data * noise).astype(np.float32))
            else:
                writer.add_tensor(tensor.name, np.array(tensor.data))
            if kind == "ffn_gate":
                half = rng.standard_normal((n_expert // 2, tensor.data.shape[1]))
                router = np.concatenate([half, -half, np.zeros((n_expert % 2, half.shape[1]))])
                writer.add_tensor(f"{block}.ffn_gate_inp.weight", router.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
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


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium. Skipped where it, its driver or selenium is missing, but never in CI."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver and webdriver):
        message = "needs chromium, chromedriver (Debian: chromium chromium-driver) and selenium (the dev extra)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty evaluation cache for one test (the built runtime stays where it is)."""
    monkeypatch.setattr("gguf_golf.evaluate.evaluate.cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache"
