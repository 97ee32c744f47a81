"""The built runtime as other programs see it. What must hold for a fresh process runs in one."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from gguf_golf.errors import BuildError
from gguf_golf.runtime import bindings, build, library, load, tool
from gguf_golf.runtime.config import Options

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="about ELF run paths")


@pytest.fixture(scope="module")
def runtime() -> Path:
    return library.current()


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "LLAMA_CPP_LIB_PATH"} | variables
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_load_runs_the_bindings_on_the_patched_libraries() -> None:
    assert load().llama_supports_mmap()
    assert Path(load().llama_cpp._lib._name).parent == library.folder()


def test_a_program_that_does_not_know_us_gets_the_patched_libraries(runtime: Path) -> None:
    done = python("import llama_cpp._ggml as g; print(g.libggml.ggml_type_size(114))")
    assert done.stdout.split() == ["100"], done.stderr  # bytes of a tcq3 block


def test_a_runtime_that_came_with_the_wheel_is_used_where_it_fits_and_none_was_built(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "prebuilt" / "runtime"
    shipped.mkdir(parents=True)
    made = library.manifest(runtime)
    monkeypatch.setattr(library.prebuilt, "RUNTIME", shipped)
    (shipped / "manifest.json").write_text(json.dumps(made))
    assert library.present() == runtime, "what was built here is tuned for this CPU"
    monkeypatch.setattr(bindings, "linked", lambda: None)
    assert library.present() == shipped
    (shipped / "manifest.json").write_text(json.dumps(made | {"source": "of other patches"}))
    assert library.present() is None
    (shipped / "manifest.json").write_text(json.dumps(made | {"options": asdict(Options(portable=True))}))
    monkeypatch.setattr(library.config.cpu, "features", frozenset)  # a CPU without AVX2
    assert library.present() is None


def test_load_leaves_no_override_to_children(runtime: Path) -> None:
    done = python("from gguf_golf.runtime import load; load(); import os; print(os.environ.get('LLAMA_CPP_LIB_PATH'))")
    assert done.stdout.split() == ["None"], done.stderr


def test_the_override_of_the_bindings_is_honoured(runtime: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runtime / "lib", tmp_path / "lib", symlinks=True)
    code = "from gguf_golf.runtime import library; library.load(); print(library.libggml()._name)"
    done = python(code, LLAMA_CPP_LIB_PATH=str(copy))
    assert done.stdout.split() == [str(copy / Path(library.libggml()._name).name)], done.stderr


def test_bindings_that_already_run_on_other_libraries_are_refused(runtime: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runtime / "lib", tmp_path / "lib", symlinks=True)
    code = "import os, llama_cpp; del os.environ['LLAMA_CPP_LIB_PATH']; from gguf_golf.runtime import load; load()"
    done = python(code, LLAMA_CPP_LIB_PATH=str(copy))
    assert "llama_cpp was imported before gguf-golf could choose its libraries" in done.stderr


@LINUX
def test_a_foreign_ggml_on_the_library_path_does_not_replace_ours(runtime: Path, tmp_path: Path) -> None:
    for path in (runtime / "lib").glob("libggml*"):
        (tmp_path / path.name).write_bytes(b"")  # would fail to load: not a library
    done = python("from gguf_golf.runtime import load; load(); print('fine')", LD_LIBRARY_PATH=str(tmp_path))
    assert done.stdout.split() == ["fine"], done.stderr


def test_a_runtime_for_another_cpu_is_replaced(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = library.manifest(runtime)
    foreign = made | {"cpu": [*made["cpu"], "avx1024"]}
    monkeypatch.setattr(library, "manifest", lambda folder: foreign)
    monkeypatch.setattr(library, "make", lambda options, components: (options, components))
    present = tuple(name for name in build.COMPONENTS if (runtime / name).is_dir())
    assert library.current() == (Options(**made["options"]), present)


def test_a_runtime_of_other_patches_is_replaced(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gguf_golf.runtime.config.source_key", lambda: "other")
    monkeypatch.setattr(library, "make", lambda options, components: "rebuilt")
    assert library.current() == "rebuilt"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"options": {"turbo": true}}'])
def test_a_manifest_that_cannot_be_read_is_named_with_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BuildError, match=r"manifest\.json cannot be read .*: delete .*, and it is built again"):
        library.manifest(tmp_path)


def test_an_environment_without_a_runtime_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "linked", lambda: None)
    monkeypatch.setattr(library, "make", lambda options: options)
    assert library.current() == Options()


def test_a_tool_that_is_not_built_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "current", lambda: tmp_path)
    with pytest.raises(BuildError, match="run `gguf-golf runtime build --tools`"):
        tool("llama-quantize")
    with pytest.raises(BuildError, match="run `gguf-golf runtime build --tests`"):
        tool("test-backend-ops")
    with pytest.raises(BuildError, match="no program called llama-nothing"):
        tool("llama-nothing")


def test_the_tools_run_and_know_our_types(runtime: Path) -> None:
    if not (runtime / "tools").is_dir():
        pytest.skip("needs `gguf-golf runtime build --tools`")
    done = subprocess.run([tool("llama-quantize"), "--help"], capture_output=True, text=True, check=False)
    assert "TCQ3" in done.stdout.upper()
