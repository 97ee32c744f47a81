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


def iter_then_fail():
    yield b"half of it"
    raise KeyboardInterrupt
