"""Publishing, keys and races of the build, with a compiler that only writes files."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gguf_golf.errors import BuildError
from gguf_golf.runtime import build, config
from gguf_golf.runtime.config import Options

PARTS = {"pin": "1", "source": "s0", "flags": ["A=ON"], "cpu": ["avx"], "options": {"amx": False}}
COMPILER = {"c": "cc 1", "c++": "c++ 1", "c_flags": ""}


def compile_fake(tree: Path, name: str) -> None:
    """What ninja would leave in bin/, and a line in a journal."""
    binaries = tree / "build" / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    with (tree / "journal").open("a") as journal:
        journal.write(f"begin {name} {os.getpid()}\n")
    (binaries / "libllama.so").write_text("llama")
    (binaries / "libggml.so.0").write_text("ggml")
    if not (binaries / "libggml.so").is_symlink():
        (binaries / "libggml.so").symlink_to("libggml.so.0")
    if name != "lib":
        (binaries / "libllama-common.so").write_text("common")
        for target in build.COMPONENTS[name].targets:
            (binaries / target).write_text("program")
    with (tree / "journal").open("a") as journal:
        journal.write(f"end {name} {os.getpid()}\n")


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """No network, no compiler: a source of one file, and compile_fake. Yields the ingredients, to be changed."""
    parts = dict(PARTS)
    source = tmp_path / "source"
    (source / "s0").mkdir(parents=True)
    (source / "s0" / "a.c").write_text("a")
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "ingredients", lambda options: dict(parts))
    monkeypatch.setattr(config, "compiler", lambda options: dict(COMPILER))
    monkeypatch.setattr(build, "source_dir", lambda: source / parts["source"])
    monkeypatch.setattr(build, "_configure", lambda tree, parts: None)
    monkeypatch.setattr(build, "_compile", compile_fake)
    yield parts


def journal(cache: Path) -> list[str]:
    return [line for path in cache.glob("tree/*/journal") for line in path.read_text().splitlines()]


def test_libraries_are_published_with_their_manifest(tmp_path: Path) -> None:
    runtime = build.build(Options())
    assert sorted(path.name for path in (runtime / "lib").iterdir()) == ["libggml.so", "libggml.so.0", "libllama.so"]
    assert (runtime / "lib" / "libggml.so").readlink() == Path("libggml.so.0")
    assert json.loads((runtime / "manifest.json").read_text()) == PARTS | {"compiler": COMPILER}
    assert build.build(Options()) == runtime
    assert len(journal(tmp_path / "cache")) == 2  # one begin, one end


def test_tools_come_to_a_runtime_that_stays_as_it_is() -> None:
    runtime = build.build(Options())
    before = (runtime / "lib").stat()
    assert build.build(Options(), ("tools",)) == runtime
    assert (runtime / "lib").stat().st_ino == before.st_ino
    assert (runtime / "tools" / "llama-quantize").read_text() == "program"
    assert (runtime / "tools" / "libllama-common.so").exists()
    assert not (runtime / "tools" / "libllama.so").exists()


def test_the_rpc_backend_comes_to_a_runtime_without_cmake(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = build.build(Options())

    def compile_backend(source: Path, lib: Path, folder: Path) -> None:
        assert (source / "a.c").is_file() and (lib / "libggml.so").exists()
        folder.mkdir()
        (folder / "libggml-rpc.so").write_text("rpc")

    monkeypatch.setattr(build, "_configure", None)
    monkeypatch.setattr(build.rpc_backend, "compile_backend", compile_backend)
    assert build.build(Options(), ("lib", "rpc")) == runtime
    assert [path.name for path in (runtime / "rpc").iterdir()] == ["libggml-rpc.so"]


def test_a_failed_build_leaves_no_runtime_and_the_next_one_heals(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(tree: Path, name: str) -> None:
        raise BuildError("no")

    with monkeypatch.context() as broken, pytest.raises(BuildError):
        broken.setattr(build, "_compile", fail)
        build.build(Options())
    assert not list((tmp_path / "cache").glob("runtime/*"))
    assert (build.build(Options()) / "lib").is_dir()


def test_an_interrupt_while_copying_leaves_no_half_component(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copies = []
    copy2 = shutil.copy2

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        copies.append(args)
        if len(copies) == 2:
            raise KeyboardInterrupt
        return copy2(*args, **kwargs)

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(shutil, "copy2", interrupted)
        build.build(Options())
    assert not list((tmp_path / "cache").glob("runtime/*/lib"))
    assert len(list((build.build(Options()) / "lib").iterdir())) == 3


def _build_at(barrier: Any) -> None:
    barrier.wait()
    build.build(Options())


def test_processes_that_build_at_once_compile_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(4)
    workers = [fork.Process(target=_build_at, args=(barrier,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(journal(tmp_path / "cache")) == 2


def test_patches_that_change_while_waiting_are_what_gets_built(
    fake: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def patched_meanwhile() -> Path:
        fake["source"] = "s1"
        return tmp_path / "source" / "s1"

    (tmp_path / "source" / "s1").mkdir()
    monkeypatch.setattr(build, "source_dir", patched_meanwhile)
    runtime = build.build(Options())
    assert json.loads((runtime / "manifest.json").read_text())["source"] == "s1"
    assert len(list((tmp_path / "cache" / "runtime").iterdir())) == 1


@pytest.mark.parametrize("name", [*PARTS])
def test_every_ingredient_makes_another_runtime(fake: dict[str, Any], tmp_path: Path, name: str) -> None:
    first = build.build(Options())
    fake[name] = "s1" if name == "source" else ["changed"]
    (tmp_path / "source" / "s1").mkdir()
    assert build.build(Options()) != first


def test_another_compiler_makes_another_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.build(Options())
    monkeypatch.setattr(config, "compiler", lambda options: COMPILER | {"c": "cc 2"})
    assert build.build(Options()) != first


def test_a_change_of_patches_keeps_the_tree(fake: dict[str, Any], tmp_path: Path) -> None:
    build.build(Options())
    (tmp_path / "source" / "s1").mkdir()
    fake["source"] = "s1"
    build.build(Options())
    assert len(list((tmp_path / "cache").glob("tree/*/journal"))) == 1


def test_sync_touches_only_what_differs(tmp_path: Path) -> None:
    source, copy = tmp_path / "new", tmp_path / "copy"
    for folder, files in {source: "same changed added", copy: "same changed removed"}.items():
        folder.mkdir()
        for name in files.split():
            (folder / name).write_text(name)
            os.utime(folder / name, (1000, 1000))
    (source / "changed").write_text("changed again")
    os.utime(source / "changed", (500, 500))  # older than what was compiled: ninja must see it nevertheless
    build._sync(source, copy)
    assert {path.name: path.read_text() for path in copy.iterdir()} == {
        "same": "same",
        "changed": "changed again",
        "added": "added",
    }
    assert (copy / "same").stat().st_mtime == 1000
    assert (copy / "changed").stat().st_mtime > 1000


def test_an_external_project_whose_ninja_is_gone_is_made_again(tmp_path: Path) -> None:
    def cache(name: str, ninja: Path) -> Path:
        path = tmp_path / "ggml" / "src" / "ggml-vulkan" / f"{name}-prefix" / "src" / f"{name}-build" / "CMakeCache.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"//make program\nCMAKE_MAKE_PROGRAM:FILEPATH={ninja}\n")
        return path

    (tmp_path / "ninja").touch()
    here, gone = cache("here", tmp_path / "ninja"), cache("gone", tmp_path / "moved" / "ninja")
    build._drop_orphans(tmp_path)
    assert here.exists()
    assert not gone.parents[2].exists()
