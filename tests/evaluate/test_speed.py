"""Speed and memory: a model's memory is its own, and finished runs are not repeated."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gguf_golf.evaluate import speed

SETTINGS = speed.SpeedSettings(n_prompt=16, n_generate=2, repeats=1, threads=1)


def test_memory_is_the_models_and_not_that_of_whoever_asks(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    small, large = tiny("q3_k"), tiny("bf16")
    ours = np.ones(1 << 29, np.uint8)  # 512 MB, resident
    found = speed.measure_speed([small, large], SETTINGS, tmp_path / "runs.jsonl")
    assert speed.peak_resident_bytes() > ours.nbytes
    for path, one in zip([small, large], found, strict=True):
        assert path.stat().st_size < one.resident_bytes < ours.nbytes


def test_finished_runs_are_kept(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    journal = tmp_path / "runs.jsonl"
    first = speed.measure_speed([tiny("q3_k")], SETTINGS, journal)
    (_, run) = journal.read_text().splitlines()
    assert json.loads(run)["prompt_tps"] == first[0].prompt_tps
    assert speed.measure_speed([tiny("q3_k")], SETTINGS, journal) == first
    journal.write_bytes(journal.read_bytes() + b'{"torn')
    assert speed.measure_speed([tiny("q3_k")], SETTINGS, journal) == first


def test_a_torn_size_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    size = speed.zstd_bytes(tmp_path / "file", tmp_path / "size")
    assert 0 < size < 100
    for torn in (b"", b"\xff1"):
        (tmp_path / "size").write_bytes(torn)
        assert speed.zstd_bytes(tmp_path / "file", tmp_path / "size") == size
