"""The store: outputs by content, and what is left of them."""

from pathlib import Path

import pytest

from gguf_golf.steps.store import open_store


def test_forgetting_a_step_drops_its_output_and_what_a_killed_worker_had_written_of_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put("aa", [b"one"], lambda: 1.0)
    kept = store.put("bb", [b"two"], lambda: 1.0)

    def cut_off() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # a killed process removes nothing
            store.put("aa", iter_then_fail(), lambda: 1.0)

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert len([path for path in tmp_path.rglob(".*") if path.is_file()]) == 1
    store.forget("aa")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {f"objects/{kept.sha256}", "steps/bb.json"}


def test_an_output_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    made = store.put("key", [b"output"], lambda: 0.0)
    assert store.find("key") == made
    (tmp_path / "objects" / made.sha256).write_bytes(b"out")
    assert store.find("key") is None
    assert store.put("key", [b"output"], lambda: 0.0).sha256 == made.sha256
    assert (tmp_path / "objects" / made.sha256).read_bytes() == b"output"


def iter_then_fail():
    yield b"half of it"
    raise KeyboardInterrupt
