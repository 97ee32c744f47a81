"""TCQ's Vulkan shaders in ggml's own backend, on any Vulkan device: Mesa's lavapipe, which is a CPU, will do.

Upstream's test-backend-ops compares operations with the CPU's; `tests/patches/gpu/exact.cpp` compares weights bit by
bit, and products of random blocks, great values among them, with float64. The backend is built alone, as a module that
the runtime's programs load.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_golf.files import locked
from gguf_golf.formats import quant_types
from gguf_golf.runtime import build, config, source
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.config import Options

EXACT = Path(__file__).parents[1] / "gpu" / "exact.cpp"
PACKAGES = "glslc libvulkan-dev spirv-headers mesa-vulkan-drivers vulkan-tools"
FLAGS = [*config.cmake_flags(Options(portable=True, vulkan=True)), "GGML_BACKEND_DL=ON", "GGML_CPU=OFF"]

CASES = {
    "GET_ROWS": "type=tcq",
    "CPY": "type_src=tcq.*type_dst=f",
    "MUL_MAT": "type_a=tcq.*n=(1|2|16),",  # lavapipe compiles for each number of columns up to 8, which takes seconds
    "MUL_MAT_ID": "type_a=tcq",
}

Tool = Callable[[str], Path]
Run = Callable[..., str]


def has_device() -> bool:
    """Whether the Vulkan loader finds any device, a CPU included."""
    if not shutil.which("vulkaninfo"):
        return False
    done = subprocess.run(["vulkaninfo", "--summary"], capture_output=True, text=True, check=False)
    return "deviceName" in done.stdout


@pytest.fixture(scope="module")
def backend() -> Path:
    """The Vulkan backend as a module, compiled again where patches/ changed. Skipped without tools, but never in CI."""
    if not (shutil.which("glslc") and has_device()):
        message = f"needs a Vulkan device and what compiles shaders (Debian: apt install {PACKAGES})"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    tree = cache_dir() / "tree" / "vulkan"
    with locked(tree, wait=True):
        build._sync(source.source_dir(), tree / "src")
        build._configure(tree, {"compiler": {"c_flags": ""}, "flags": FLAGS})
        build._make(tree, ["ggml-vulkan"], "building the Vulkan backend")
    return next(tree.rglob("libggml-vulkan.so"))


@pytest.fixture(scope="module")
def run(backend: Path) -> Run:
    """Runs a program with the backend's first device, whatever kind it is."""
    env = os.environ | {"GGML_BACKEND_PATH": str(backend), "GGML_VK_VISIBLE_DEVICES": "0"}

    def call(*command: str | Path) -> str:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    return call


def test_random_blocks_decode_to_the_bit_and_multiply_as_floats_do(llama_tool: Tool, run: Run, tmp_path: Path) -> None:
    libraries = llama_tool("test-backend-ops").parents[1] / "lib"
    headers = source.source_dir() / "ggml" / "include"
    subprocess.run(
        [*("c++", "-std=c++17", "-O1", f"-I{headers}", "-o", tmp_path / "exact", EXACT, f"-L{libraries}"),
         *("-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}")],
        check=True,
    )  # fmt: skip
    lines = run(tmp_path / "exact", "1").splitlines()
    assert [line.split()[0] for line in lines if "weights differ" in line] == list(quant_types.TCQ_FORMATS)


@pytest.mark.parametrize("op", CASES)
def test_backend_ops(llama_tool: Tool, run: Run, op: str) -> None:
    printed = run(llama_tool("test-backend-ops"), "test", "-b", "Vulkan0", "-o", op, "-p", CASES[op])
    passed = [line for line in printed.splitlines() if "OK" in line]
    for name in quant_types.TCQ_FORMATS:
        assert any(f"={name}," in line for line in passed), f"{op} was not run for {name}"
