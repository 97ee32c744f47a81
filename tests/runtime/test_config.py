"""What a build is refused for, and what its flags are."""

from pathlib import Path

import pytest

from gguf_golf.errors import BuildError
from gguf_golf.runtime import config, cpu
from gguf_golf.runtime.config import Options


def test_cuda_without_nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "true")
    monkeypatch.setenv("CXX", "true")
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    monkeypatch.setattr(config.shutil, "which", lambda name: None)
    with pytest.raises(BuildError, match=r"no nvcc on PATH.*install the CUDA toolkit"):
        config.compiler(Options(cuda=True))


def test_vulkan_without_glslc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "true")
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr(config.shutil, "which", lambda name: None)
    with pytest.raises(BuildError, match=r"no glslc on PATH.*apt install glslc libvulkan-dev spirv-headers"):
        config.compiler(Options(vulkan=True))


def test_metal_away_from_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.platform, "system", lambda: "Linux")
    with pytest.raises(BuildError, match="needs a Mac"):
        config.compiler(Options(metal=True))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"no compiler found .*apt install g\+\+"):
        config.compiler(Options())


def test_a_compiler_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc -m32")
    with pytest.raises(BuildError, match="`/nowhere/cc -m32` does not run"):
        config.compiler(Options())


def test_amx_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "architecture", lambda: "x86_64")
    monkeypatch.setattr(config, "_accepts", lambda command, flag: flag != "-mno-amx-bf16")  # an older compiler
    assert config.compiler(Options())["c_flags"] == "-mno-amx-tile -mno-amx-int8"
    assert config.compiler(Options(amx=True))["c_flags"] == ""


def test_a_native_runtime_names_this_cpu_and_a_portable_one_a_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "architecture", lambda: "x86_64")
    monkeypatch.setattr(cpu, "features", lambda: cpu.PORTABLE["x86_64"] | {"avx512f"})
    assert "avx512f" in config.ingredients(Options())["cpu"]
    assert config.ingredients(Options(portable=True))["cpu"] == sorted(cpu.PORTABLE["x86_64"])
    monkeypatch.setattr(cpu, "features", lambda: cpu.PORTABLE["x86_64"] - {"avx2"})
    with pytest.raises(BuildError, match="needs avx2, which this CPU lacks"):
        config.ingredients(Options(portable=True))


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (Options(), "GGML_NATIVE=ON"),
        (Options(portable=True), "GGML_NATIVE=OFF"),
        (Options(cuda=True), "GGML_CUDA=ON"),
        (Options(metal=True), "GGML_METAL=ON"),
        (Options(), "GGML_METAL=OFF"),
        (Options(vulkan=True), "GGML_VULKAN=ON"),
    ],
)
def test_options_become_flags(options: Options, flag: str) -> None:
    assert flag in config.cmake_flags(options)
