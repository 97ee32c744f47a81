"""What `gguf-golf cache` shows and deletes, and what makes room by itself, in a cache of small stand-ins."""

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from gguf_golf.cli import cli
from gguf_golf.errors import InputError
from gguf_golf.runtime import bindings, cache, clean, config

PARTS = {"pin": "1", "source": "s1", "flags": ["A=ON"], "cpu": ["avx"], "options": {"amx": False}}
TREE = config.tree_key(PARTS | {"source": "s0"})  # another source, the same tree
IN_USE = {"runtime/r1", "source/s1", f"tree/{TREE}", "sdist/llama"}
DAY = 86400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of three old builds, a conversion, two evaluations and two leftovers beside what the runtime uses.

    Everything was used ten days ago, but for eval/new, which was used today; sizes are whole disk blocks.
    """
    for name in (*IN_USE, "runtime/r0", "source/s0", "tree/t0", "eval/old", "eval/new"):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "lib" / "file").write_bytes(bytes(100_000))
    (tmp_path / "runtime" / "r1" / "manifest.json").write_text(json.dumps(PARTS))
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "model.gguf").write_bytes(bytes(300_000))
    (tmp_path / "source" / ".tmp1234").mkdir()
    (tmp_path / "converted" / ".tmp5678").mkdir()
    (tmp_path / "converted" / ".tmp5678" / "model.gguf").write_bytes(bytes(100_000))
    for path in tmp_path.rglob("*"):
        age = 0 if "eval/new" in str(path) else 10 * DAY
        os.utime(path, (time.time() - age, time.time() - age))
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(tmp_path))
    monkeypatch.setattr(bindings, "linked", lambda: tmp_path / "runtime" / "r1")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("*/*")}


def test_everything_is_listed_with_its_kind_and_its_size_on_disk(folder: Path) -> None:
    done = CliRunner().invoke(cli, ["cache", "show", "--json", "-"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert {entry["path"] for entry in document["entries"]} == names(folder)
    by_path = {entry["path"]: entry for entry in document["entries"]}
    assert by_path["converted/model.gguf"]["kind"] == "converted"
    assert 300_000 <= by_path["converted/model.gguf"]["bytes"] < 310_000
    assert by_path["eval/old"]["kind"] == "eval"
    assert by_path["tree/t0"]["kind"] == "builds"
    assert {path for path, entry in by_path.items() if entry["kind"] == "leftovers"} == {
        "source/.tmp1234",
        "converted/.tmp5678",
    }
    assert document["entries"][0]["path"] == "eval/new"
    assert document["bytes"] == sum(entry["bytes"] for entry in document["entries"])


def test_what_this_runtime_is_made_of_is_never_deleted(folder: Path) -> None:
    before = sum(entry.bytes for entry in cache.entries())
    freed = clean.clean()
    assert names(folder) == IN_USE
    assert freed == before - sum(entry.bytes for entry in cache.entries())
    assert clean.clean() == 0


def test_kinds_and_age_choose(folder: Path) -> None:
    before = names(folder)
    clean.clean(["builds"])
    assert before - names(folder) == {"runtime/r0", "source/s0", "tree/t0"}
    clean.clean(["eval"], older_than=DAY)
    assert {"eval/new"} == {name for name in names(folder) if name.startswith("eval/")}


def test_the_least_recently_used_go_first_until_the_size_is_reached(folder: Path) -> None:
    os.utime(folder / "eval" / "old" / "lib" / "file", (1, 1))
    os.utime(folder / "eval" / "old" / "lib", (1, 1))
    os.utime(folder / "eval" / "old", (1, 1))
    total = sum(entry.bytes for entry in cache.entries())
    done = CliRunner().invoke(cli, ["cache", "clean", "eval", "converted", "--max-size", str(total - 1)])
    assert done.exit_code == 0, done.output
    assert "eval/old" not in names(folder)
    assert {"eval/new", "converted/model.gguf"} <= names(folder)


def test_a_size_that_cannot_be_read_is_refused() -> None:
    result = CliRunner().invoke(cli, ["cache", "clean", "--max-size", "20 cats"])
    assert isinstance(result.exception, InputError)
    assert "20GB" in str(result.exception)


def test_room_is_made_by_deleting_leftovers_and_what_was_not_used_for_longest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(folder)
    monkeypatch.setenv("GGUF_GOLF_CACHE_LIMIT", "1GB")
    cache.make_room()
    assert before - names(folder) == {"source/.tmp1234", "converted/.tmp5678"}
    cache.mark_used(folder / "converted" / "model.gguf")
    monkeypatch.setenv("GGUF_GOLF_CACHE_LIMIT", "1kB")
    cache.make_room()
    left = names(folder)
    assert "eval/old" not in left
    assert {"eval/new", "converted/model.gguf"} <= left, "used today: another process may need it"
    assert {"runtime/r0", "source/s0", "tree/t0"} <= left, "builds go when they are told to"


def test_other_users_cannot_read_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GGUF_GOLF_CACHE", raising=False)
    usual = tmp_path / "usual"
    monkeypatch.setattr(cache, "user_cache_path", lambda name: usual)
    usual.mkdir(mode=0o755)
    assert cache.cache_dir() == usual
    assert usual.stat().st_mode & 0o777 == 0o700
    chosen = tmp_path / "chosen" / "new"
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(chosen))
    assert cache.cache_dir().stat().st_mode & 0o777 == 0o700


def test_a_folder_that_the_user_chose_keeps_its_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o775)
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(shared))
    cache.cache_dir()
    assert shared.stat().st_mode & 0o777 == 0o775
