"""Build the patched llama.cpp into the cache; library.py loads it."""

import filecmp
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf_golf.errors import BuildError
from gguf_golf.files import locked, sync, sync_tree
from gguf_golf.runtime import config, process, rpc_backend
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.config import Options
from gguf_golf.runtime.source import source_dir


@dataclass(frozen=True)
class Component:
    """A part of a runtime that is built and published as a unit."""

    targets: tuple[str, ...]  # what ninja is asked for
    libraries: tuple[str, ...]  # which shared libraries it needs beside its programs, as globs in the tree's bin/


COMPONENTS = {
    "lib": Component(("llama",), ("libggml*", "libllama.*")),
    "tools": Component(
        ("llama-quantize", "llama-perplexity", "llama-imatrix", "llama-bench", "llama-cli", "llama-server"),
        ("libllama-*", "libmtmd*"),
    ),
    "tests": Component(("test-quantize-fns", "test-backend-ops"), ("libllama-common*",)),
    "rpc": Component((), (rpc_backend.NAME,)),
}


def build(options: Options, components: tuple[str, ...] = ("lib",)) -> Path:
    """Build the missing parts of this checkout's runtime and return its folder in the cache.

    `components` are keys of COMPONENTS; "lib" is always built. The folder of a component appears
    whole or not at all. Raises BuildError.
    """
    parts = config.ingredients(options) | {"compiler": config.compiler(options)}
    runtime = cache_dir() / "runtime" / config.key(parts)
    wanted = [name for name in COMPONENTS if name == "lib" or name in components]
    if all((runtime / name).is_dir() for name in wanted):
        return runtime
    tree = cache_dir() / "tree" / config.tree_key(parts)
    with locked(tree, wait=True):
        source = source_dir()
        if source.name != parts["source"]:  # patches/ changed while this process waited
            return build(options, components)
        missing = [name for name in wanted if not (runtime / name).is_dir()]
        if missing != ["rpc"]:
            _sync(source, tree / "src")
            _configure(tree, parts)
        for name in missing:
            if name == "rpc":
                rpc_backend.compile_backend(source, runtime / "lib", tree / "rpc")
                _publish(tree / "rpc", runtime, name, parts)
                continue
            _compile(tree, name)
            _publish(tree / "build" / "bin", runtime, name, parts)
    return runtime


def compile_source(source: Path, tree: Path, options: Options, components: tuple[str, ...]) -> None:
    """Compile any patched llama.cpp in the folder `tree` (its programs: build/bin), and publish nothing.

    Raises BuildError.
    """
    with locked(tree, wait=True):
        _sync(source, tree / "src")
        _configure(tree, config.ingredients(options) | {"compiler": config.compiler(options)})
        for name in components:
            _compile(tree, name)


def _sync(source: Path, copy: Path) -> None:
    """Make `copy` equal to `source` without touching files that are equal already.

    Ninja compares modification times: an untouched file is not recompiled, and a changed one gets the current time,
    even if it reverts to older content.
    """
    wanted = {path.relative_to(source) for path in source.rglob("*") if not path.is_dir()}
    present = {path.relative_to(copy) for path in copy.rglob("*") if not path.is_dir()} if copy.is_dir() else set()
    for name in present - wanted:
        (copy / name).unlink()
    for name in sorted(wanted):
        if name not in present or not filecmp.cmp(source / name, copy / name, shallow=False):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)
            shutil.copymode(source / name, copy / name)


def _configure(tree: Path, parts: dict[str, object]) -> None:
    """Run cmake. A tree that it refuses (made by another cmake, moved, half-written) is configured from scratch."""
    compiler = parts["compiler"]
    assert isinstance(compiler, dict) and isinstance(parts["flags"], list)
    command = [
        *(_program("cmake"), "-S", tree / "src", "-B", tree / "build", "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={_program('ninja')}",
        f"-DCMAKE_C_FLAGS={compiler['c_flags']}",
        f"-DCMAKE_CXX_FLAGS={compiler['c_flags']}",
        *(f"-D{flag}" for flag in parts["flags"]),
    ]
    log = tree / "build.log"
    log.unlink(missing_ok=True)
    # a repository that happens to contain the cache is not llama.cpp's: cmake must not report its commit
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree)}
    reused = (tree / "build").is_dir()
    _drop_orphans(tree / "build")
    try:
        process.run(command, "configuring llama.cpp", log, env)
    except BuildError:
        if not reused:
            raise
        shutil.rmtree(tree / "build")
        process.run(command, "configuring llama.cpp again", log, env)


def _drop_orphans(folder: Path) -> None:
    """Remove external projects (Vulkan's shader generator) that were configured with a ninja that is gone since.

    Their caches do not follow ours: an environment that moved, or was made anew elsewhere, would break the build.
    """
    for cache in folder.glob("ggml/src/*/*-prefix/src/*/CMakeCache.txt"):
        made_by = re.search(r"^CMAKE_MAKE_PROGRAM:\w+=(.+)$", cache.read_text(encoding="utf-8"), re.MULTILINE)
        if made_by is None or not Path(made_by[1]).exists():
            shutil.rmtree(cache.parents[2])


def _compile(tree: Path, name: str) -> None:
    _make(tree, COMPONENTS[name].targets, f"building llama.cpp ({name})")


def _make(tree: Path, targets: Sequence[str], what: str) -> None:
    command = [_program("cmake"), "--build", tree / "build", "--target", *targets]
    # an external project looks for its ninja on PATH
    env = os.environ | {"PATH": _search_path()}
    process.run(command, what, tree / "build.log", env)


def _publish(binaries: Path, runtime: Path, name: str, parts: dict[str, object]) -> None:
    """Copy one component out of the tree and rename it into place."""
    component = COMPONENTS[name]
    runtime.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runtime, prefix=".") as folder:
        manifest = Path(folder) / "manifest.json"
        manifest.write_text(json.dumps(parts, indent=2) + "\n")
        sync(manifest)
        manifest.rename(runtime / manifest.name)
        aside = Path(folder) / name
        aside.mkdir()
        programs = [target for target in component.targets if name != "lib"]
        for pattern in (*component.libraries, *programs):
            for path in binaries.glob(pattern):
                shutil.copy2(path, aside, follow_symlinks=False)
        sync_tree(aside)
        aside.rename(runtime / name)
        sync(runtime)


def _search_path() -> str:
    """PATH, with the programs that are installed beside gguf-golf first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _program(name: str) -> Path:
    """cmake or ninja: the one installed with gguf-golf, else one on PATH."""
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise BuildError(f"{name} is not installed: run `{sys.executable} -m pip install {name}`")
    return Path(found)
