"""eval/protocol.py: one command from a checkpoint to the table, with every kind of file in it."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

import gguf_golf as gg
from tests.docs.conftest import ROOT


def test_the_table_has_every_kind_of_file(
    desk: Path, monkeypatch: pytest.MonkeyPatch, llama_tool: Callable[[str], Path]
) -> None:
    llama_tool("llama-quantize")
    monkeypatch.syspath_prepend(str(ROOT / "eval"))
    monkeypatch.chdir(desk)
    gg.convert("MyModel", "theirs/other.gguf", type="q5_0")
    few = ["--types", "tcq3", "--mixes", "Q4_K_M", "--chunks", "2", "--calibration-chunks", "2", "--also", "theirs"]
    done = CliRunner().invoke(import_module("protocol").protocol, ["MyModel", "-o", "out", *few])
    assert done.exit_code == 0, done.output
    rows = {}
    for line in (desk / "out" / "table.md").read_text(encoding="utf-8").splitlines()[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name] = cells
    assert {name.split(" ")[0].removeprefix("MyModel") for name in rows} == {
        *(".gguf", "-tcq3.gguf", "-Q4_K_M.gguf", "-Q4_K_M-planned.gguf", "other.gguf")
    }
    sizes = {name: [float(cell) for cell in cells[:3]] for name, cells in rows.items() if "noise" not in name}
    assert all(tensors <= file for tensors, file, _download in sizes.values())
    assert sizes["MyModel-Q4_K_M-planned.gguf"][1] <= sizes["MyModel-Q4_K_M.gguf"][1]
    document = json.loads((desk / "out" / "results.json").read_text())
    [text] = document["settings"]["texts"]
    assert (text["n_ctx"], text["n_chunks"]) == (512, 2)
    assert (desk / "out" / "report.html").is_file() and (desk / "out" / "table.csv").is_file()
