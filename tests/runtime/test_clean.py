"""What `runtime clean` deletes, in a cache of empty folders."""

import json
from pathlib import Path

import pytest

from gguf_golf.runtime import clean, config

PARTS = {"pin": "1", "source": "s1", "flags": ["A=ON"], "cpu": ["avx"], "options": {"amx": False}}


def make_folders(cache: Path, *names: str) -> None:
    for name in names:
        (cache / name / "lib").mkdir(parents=True)
        (cache / name / "lib" / "file").write_bytes(bytes(100))


def folders(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.glob("*/[!.]*")}


def test_only_what_this_runtime_does_not_use_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = config.tree_key(PARTS | {"source": "s0"})  # another source, the same tree
    kept = {"runtime/r1", "source/s1", f"tree/{tree}", "sdist/llama", "eval/base"}
    make_folders(tmp_path, *kept, "runtime/r0", "source/s0", "tree/t0")
    (tmp_path / "runtime" / "r1" / "manifest.json").write_text(json.dumps(PARTS))
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(tmp_path))
    monkeypatch.setattr(clean, "current", lambda: tmp_path / "runtime" / "r1")

    assert clean.clean() == 300
    assert folders(tmp_path) == kept
    assert clean.clean() == 0
