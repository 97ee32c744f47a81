"""What a runtime is built from: the ingredients that determine its name in the cache, and the flags that follow."""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gguf_golf.errors import BuildError
from gguf_golf.runtime import cpu, pin
from gguf_golf.runtime.source import source_key

_LINUX = platform.system() == "Linux"

# libraries find each other beside themselves; programs in tools/ and tests/ find them in lib/
ORIGIN = "$ORIGIN" if _LINUX else "@loader_path"

_FLAGS = (
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=ON",
    "CMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    f"CMAKE_INSTALL_RPATH={ORIGIN};{ORIGIN}/../lib",
    # everything is configured, so that one tree serves libraries, tools and tests; what is built is chosen by target
    "LLAMA_BUILD_TOOLS=ON",
    "LLAMA_BUILD_SERVER=ON",
    "LLAMA_BUILD_TESTS=ON",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_APP=OFF",
    # the build must not touch the network
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
    "LLAMA_OPENSSL=OFF",
    # ggml's own threads: one code path on every system, no libgomp to find, and none of its threads to lose in a fork
    "GGML_OPENMP=OFF",
)

# DT_RPATH instead of DT_RUNPATH: a stock llama.cpp on LD_LIBRARY_PATH must not replace the patched one
_LINUX_FLAGS = (
    "CMAKE_SHARED_LINKER_FLAGS=-Wl,--disable-new-dtags",
    "CMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags",
)

_AMX_OFF = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")


@dataclass(frozen=True)
class Options:
    """The user's choices for a build."""

    amx: bool = False  # some virtual machines report AMX and crash in it
    portable: bool = False  # for any CPU of this architecture that ggml supports by default, not tuned for this one
    cuda: bool = False
    metal: bool = False
    vulkan: bool = False


def ingredients(options: Options) -> dict[str, Any]:
    """Everything that determines this checkout's runtime, except the compiler. JSON types only.

    Raises BuildError when this machine cannot run such a runtime.
    """
    return {
        "pin": pin.VERSION,
        "source": source_key(),
        "options": asdict(options),
        "flags": cmake_flags(options),
        "architecture": cpu.architecture(),
        "cpu": sorted(_cpu_features(options)),
    }


def cmake_flags(options: Options) -> list[str]:
    """The -D settings for cmake, without the -D."""
    return [
        *_FLAGS,
        *(_LINUX_FLAGS if _LINUX else ()),
        f"GGML_NATIVE={_on(not options.portable)}",
        f"GGML_CUDA={_on(options.cuda)}",
        # the toolkit's libraries lie outside the runtime
        f"CMAKE_INSTALL_RPATH_USE_LINK_PATH={_on(options.cuda)}",
        f"GGML_METAL={_on(options.metal)}",
        f"GGML_METAL_EMBED_LIBRARY={_on(options.metal)}",
        f"GGML_VULKAN={_on(options.vulkan)}",
        # one file for each library, no links: a wheel cannot hold any
        *(("CMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",) if options.portable else ()),
    ]


def compiler(options: Options) -> dict[str, str]:
    """Identity of the compilers that cmake will find, and the compile flags that they accept.

    Raises BuildError, saying what to install, when one is missing.
    """
    c = _command("CC", ("cc", "gcc", "clang"))
    found = {"c": _version(c), "c++": _version(cxx()), "c_flags": ""}
    if not options.amx and cpu.architecture() == "x86_64":
        known = [flag for flag in _AMX_OFF if _accepts(c, flag) and _accepts(cxx(), flag)]
        found["c_flags"] = " ".join(known)
    if options.cuda:
        found["cuda"] = _version([_nvcc()])
    if options.vulkan:
        found["glslc"] = _version([_glslc()])
    if options.metal and platform.system() != "Darwin":
        raise BuildError("--metal needs a Mac: Metal exists on macOS only, and this is " + platform.system())
    return found


def cxx() -> list[str]:
    """The C++ compiler's command. Raises BuildError, saying what to install, when there is none."""
    return _command("CXX", ("c++", "g++", "clang++"))


def key(parts: dict[str, Any]) -> str:
    """A short name for ingredients: equal only for equal ingredients."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def tree_key(parts: dict[str, Any]) -> str:
    """The key of the build tree for these ingredients; all pins and patches share it."""
    return key({name: value for name, value in parts.items() if name not in ("pin", "source")})


def _cpu_features(options: Options) -> frozenset[str]:
    if not options.portable:
        return cpu.features()
    needed = cpu.PORTABLE.get(cpu.architecture(), frozenset())
    if missing := needed - cpu.features():
        raise BuildError(
            f"a --portable runtime needs {', '.join(sorted(missing))}, which this CPU lacks: "
            "run `gguf-golf runtime build` without --portable"
        )
    return needed


def _on(value: bool) -> str:
    return "ON" if value else "OFF"


def _command(variable: str, names: tuple[str, ...]) -> list[str]:
    """The compiler that cmake uses: the one named by the environment, or the first of its usual names."""
    if chosen := os.environ.get(variable):
        return shlex.split(chosen)
    for name in names:
        if shutil.which(name):
            return [name]
    raise BuildError(
        f"no compiler found (looked for {', '.join(names)}): install one "
        "(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)"
    )


def _nvcc() -> str:
    toolkit = Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")) / "bin" / "nvcc"
    for candidate in (os.environ.get("CUDACXX"), shutil.which("nvcc"), str(toolkit)):
        if candidate and Path(candidate).is_file():
            return candidate
    raise BuildError(
        f"--cuda needs NVIDIA's compiler, and there is no nvcc on PATH, in $CUDACXX or at {toolkit}: "
        "install the CUDA toolkit, or name its nvcc in CUDACXX"
    )


def _glslc() -> str:
    if found := shutil.which("glslc"):
        return found
    raise BuildError(
        "--vulkan needs the shader compiler glslc and Vulkan's headers, and there is no glslc on PATH: install them "
        "(Debian, Ubuntu: apt install glslc libvulkan-dev spirv-headers; others: the Vulkan SDK)"
    )


def _version(command: list[str]) -> str:
    try:
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"the compiler `{shlex.join(command)}` does not run: {error}") from None
    # without the licence that follows; nvcc prints its version last, clang its target second
    return " / ".join(line.strip() for line in result.stdout.splitlines() if re.search(r"version|\d\.\d|Target", line))


def _accepts(command: list[str], flag: str) -> bool:
    probe = [*command, "-Werror", flag, "-E", "-x", "c", os.devnull]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0
