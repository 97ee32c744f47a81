"""The script that moves to a newer llama.cpp, on stand-ins of two versions."""

import importlib.util
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from gguf_golf.runtime import pin, source

PATCH = """\
A word on why.
diff --git a/types.h b/types.h
--- a/types.h
+++ b/types.h
@@ -1,4 +1,5 @@
 Q1 = 1
 Q2 = 2
 Q3 = 3
+TCQ = 9
 COUNT = 4
"""


@pytest.fixture
def update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """update.py, with a pin and patches/ of its own in tmp_path."""
    spec = importlib.util.spec_from_file_location("update", Path(__file__).parents[2] / "patches" / "update.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "patches" / "src").mkdir(parents=True)
    (tmp_path / "patches" / "src" / "tcq.c").write_text("ours")
    (tmp_path / "patches" / "0001-types.patch").write_text(PATCH)
    (tmp_path / "pin.py").write_text(f'VERSION = "{pin.VERSION}"\nSHA256 = "{pin.SHA256}"\n')
    monkeypatch.setattr(module, "PIN", tmp_path / "pin.py")
    monkeypatch.setattr(source, "PATCHES", tmp_path / "patches")
    monkeypatch.setattr(source, "source_dir", lambda: tmp_path / "pinned")
    write_header(tmp_path / "pinned", "int32_t seed;")
    monkeypatch.setattr(module.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "work"))
    return module


def write_header(tree: Path, fields: str) -> None:
    """A llama.h with one struct and one function."""
    (tree / "include").mkdir(parents=True)
    (tree / "include" / "llama.h").write_text(
        f"    struct llama_params {{\n        {fields} // a word\n    }};\n    LLAMA_API void llama_free(int32_t n);\n"
    )


def release(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: dict[str, str],
    tree: str = "llama_cpp_python-9.9.9/vendor/llama.cpp",
    fields: str = "int32_t seed;",
) -> None:
    """Let pip find a source distribution with these files in its llama.cpp, which is at `tree`."""
    top = tmp_path / Path(tree).parts[0]
    for name, text in files.items():
        path = tmp_path / tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_header(tmp_path / tree, fields)
    (tmp_path / "work").mkdir()

    def fake_pip(*arguments: object, what: str) -> None:
        with tarfile.open(tmp_path / "work" / f"{top.name}.tar.gz", "w:gz") as tar:
            tar.add(top, top.name)

    monkeypatch.setattr(source, "pip", fake_pip)


MOVED = {"types.h": "// new words\n" * 5 + "Q1 = 1\nQ2 = 2\nQ3 = 3\nCOUNT = 4\n"}


def test_patches_that_moved_are_rewritten_with_the_pin(
    update: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(monkeypatch, tmp_path, MOVED)
    assert update.main("llama-cpp-python", "9.9.9") == 0
    assert "the bindings know the old one" not in capsys.readouterr().out
    patch = (tmp_path / "patches" / "0001-types.patch").read_text()
    assert patch.startswith("A word on why.\ndiff --git a/types.h b/types.h\n")
    assert "@@ -6,4 +6,5 @@" in patch
    assert 'VERSION = "9.9.9"' in (tmp_path / "pin.py").read_text()
    assert pin.SHA256 not in (tmp_path / "pin.py").read_text()


def test_a_reject_is_reported_and_the_checkout_stays_as_it_is(
    update: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(monkeypatch, tmp_path, {"types.h": "all of it is different\n", "tcq.c": "theirs"})
    assert update.main("llama-cpp-python", "9.9.9") == 1
    printed = capsys.readouterr().out
    assert "REJECT 0001-types.patch" in printed
    assert "CLASH" in printed and "tcq.c: upstream has a file of this name now" in printed
    assert list((tmp_path / "work").rglob("types.h.rej"))
    assert (tmp_path / "patches" / "0001-types.patch").read_text() == PATCH
    assert pin.VERSION in (tmp_path / "pin.py").read_text()


def test_a_package_without_our_bindings_is_only_tried(
    update: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(monkeypatch, tmp_path, MOVED, tree="xllamacpp-9.9.9/thirdparty/llama.cpp")
    assert update.main("xllamacpp", "9.9.9") == 0
    assert "All patches fit xllamacpp 9.9.9" in capsys.readouterr().out
    assert (tmp_path / "patches" / "0001-types.patch").read_text() == PATCH
    assert pin.VERSION in (tmp_path / "pin.py").read_text()


def test_a_struct_that_the_bindings_know_otherwise_is_named(
    update: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(monkeypatch, tmp_path, MOVED, fields="size_t cache_size;\n        int32_t seed;")
    update.main("llama-cpp-python", "9.9.9")
    printed = capsys.readouterr().out
    assert "CHANGED llama_params: the bindings know the old one" in printed
    assert "llama_free" not in printed


def test_what_fits_is_compiled_with_our_sources_where_asked(
    update: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(monkeypatch, tmp_path, MOVED, tree="xllamacpp-9.9.9/thirdparty/llama.cpp")
    compiled, ran = [], []

    def compile_source(tree: Path, place: Path, options: object, components: tuple[str, ...]) -> None:
        compiled.append(((tree / "tcq.c").read_text(), "TCQ = 9" in (tree / "types.h").read_text(), components))

    monkeypatch.setattr(update.build, "compile_source", compile_source)
    monkeypatch.setattr(update.process, "run", lambda command, what, log: ran.append(command[0].name))
    assert update.main("xllamacpp", None, compiles=True) == 0
    assert compiled == [("ours", True, ("lib", "tests"))]
    assert ran == ["test-quantize-fns"]
    assert "The llama.cpp of xllamacpp 9.9.9 compiles with them" in capsys.readouterr().out
