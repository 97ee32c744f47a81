"""Fetching, checking and patching, on a tiny stand-in for the source distribution."""

import hashlib
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_golf.errors import BuildError
from gguf_golf.runtime import pin, source

UPSTREAM = "one\ntwo\nthree\n"
PATCH = """\
--- a/src/a.c
+++ b/src/a.c
@@ -1,3 +1,3 @@
 one
-two
+{}
 three
"""

Patches = Callable[[dict[str, str]], Path]


@pytest.fixture
def patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patches:
    """Sets up an empty cache, a pinned sdist of two files, and the given files as patches/."""
    cache = tmp_path / "cache"
    top = tmp_path / f"llama_cpp_python-{pin.VERSION}"
    for name, text in {"src/a.c": UPSTREAM, "docs/b.md": "prose", ".git": "gitdir: nowhere"}.items():
        path = top / "vendor" / "llama.cpp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    archive = cache / "sdist" / f"{top.name}.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(top, top.name)
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(cache))
    monkeypatch.setattr(pin, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())

    def place(files: dict[str, str]) -> Path:
        folder = tmp_path / "patches"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        monkeypatch.setattr(source, "PATCHES", folder)
        return folder

    return place


def test_patches_apply_in_order_and_own_sources_land_beside(patches: Patches) -> None:
    later = PATCH.replace("-two", "-TWO")
    patches({"0001-a.patch": PATCH.format("TWO"), "0002-b.patch": later.format("2"), "src/src/tcq/own.c": "ours\n"})
    tree = source.source_dir()
    assert (tree / "src" / "a.c").read_text() == "one\n2\nthree\n"
    assert (tree / "src" / "tcq" / "own.c").read_text() == "ours\n"
    assert sorted(path.name for path in tree.iterdir()) == ["src"]  # no docs/, no .git
    assert source.source_dir() == tree


def test_a_repository_around_the_cache_does_not_swallow_patches(patches: Patches, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    patches({"0001-a.patch": PATCH.format("TWO")})
    assert "TWO" in (source.source_dir() / "src" / "a.c").read_text()


def test_a_patch_that_does_not_fit_is_named_and_leaves_nothing(patches: Patches) -> None:
    patches({"0001-good.patch": PATCH.format("TWO"), "0002-bad.patch": PATCH.format("again")})
    with pytest.raises(BuildError, match=r"0002-bad\.patch does not apply .*\n.*src/a\.c"):
        source.source_dir()
    left = [path.name for path in (source.cache_dir() / "source").iterdir() if not path.name.endswith(".lock")]
    assert left == []


def test_patches_that_change_while_they_are_applied_are_applied_again(
    patches: Patches, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches({"0001-a.patch": PATCH.format("TWO")})
    verify = source.verify

    def edit_meanwhile(path: Path) -> None:
        verify(path)
        patches({"0001-a.patch": PATCH.format("2")})

    monkeypatch.setattr(source, "verify", edit_meanwhile)
    tree = source.source_dir()
    assert tree.name == source.source_key()
    assert (tree / "src" / "a.c").read_text() == "one\n2\nthree\n"


def test_own_source_may_not_replace_an_upstream_file(patches: Patches) -> None:
    patches({"src/src/a.c": "ours\n"})
    with pytest.raises(BuildError, match=r"src/a\.c would replace a file of llama\.cpp"):
        source.source_dir()


def test_any_other_sdist_is_refused(patches: Patches, monkeypatch: pytest.MonkeyPatch) -> None:
    patches({})
    monkeypatch.setattr(pin, "SHA256", "0" * 64)
    with pytest.raises(BuildError, match=r"is not the pinned llama-cpp-python .* expected 0000"):
        source.source_dir()


def test_nothing_of_a_fetched_archive_runs_before_its_hash_is_compared(
    patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real pip on a source distribution whose build leaves a mark, under the pinned name, with another hash."""
    patches({})
    name, mark = f"llama_cpp_python-{pin.VERSION}", tmp_path / "it ran"
    project, index = tmp_path / "project" / name, tmp_path / "index"
    project.mkdir(parents=True)
    index.mkdir()
    (project / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {pin.VERSION}\n")
    (project / "setup.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        f"import setuptools; setuptools.setup(name='llama-cpp-python', version={pin.VERSION!r})\n"
    )
    with tarfile.open(index / f"{name}.tar.gz", "w:gz") as tar:
        tar.add(project, name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    archive = source.sdist()
    archive.unlink()

    with pytest.raises(BuildError, match=r"(?s)fetching llama-cpp-python .* failed.*Expected sha256"):
        source.sdist()
    assert not mark.exists()
    assert not archive.exists()

    monkeypatch.setattr(pin, "SHA256", hashlib.sha256((index / f"{name}.tar.gz").read_bytes()).hexdigest())
    assert source.sdist() == archive
    assert mark.exists(), "the stand-in would have run"


def test_the_key_names_everything_that_the_tree_is_made_of(patches: Patches, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for files in (
        {},
        {"0001-a.patch": "x"},
        {"0001-a.patch": "y"},
        {"0002-a.patch": "y"},
        {"src/ggml/own.c": "x"},
        {"src/ggml/own.h": "x"},
    ):
        patches(files)
        keys.add(source.source_key())
    monkeypatch.setattr(pin, "SHA256", "1" * 64)
    keys.add(source.source_key())
    assert len(keys) == 7
