"""`gguf-golf publish`: the card's front matter and table, parts, checksums; nothing of this machine."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from gguf_golf import cli
from gguf_golf.errors import InputError
from gguf_golf.evaluate.generate import Sampling, run
from gguf_golf.models import open_model
from gguf_golf.publish.card import About
from gguf_golf.publish.repository import lay_out
from gguf_golf.publish.split import split
from gguf_golf.report.page import write_report
from tests.report.documents import document, ladder

ABOUT = About("us/golf-GGUF", "us/golf: 'tiny' #1", "apache-2.0", "A. Golfer")


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """Two quantized files, their base, and results that speak of them."""
    models = ladder()[:3]
    for model, name in zip(models, ("bf16", "q8_0", "tcq3"), strict=True):
        data = tiny(name).read_bytes()
        (tmp_path / f"golf-{name}.gguf").write_bytes(data)
        model |= {"file": f"golf-{name}.gguf", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (tmp_path / "results.json").write_text(json.dumps(document(*models)))
    (tmp_path / "imatrix.gguf").write_bytes(b"GGUF")
    return tmp_path


def test_the_card_has_valid_front_matter_and_a_row_for_every_file(folder: Path) -> None:
    made = lay_out(folder, folder / "out", ABOUT, split_bytes=1 << 40)
    text = (made.folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": ABOUT.base_model,
        "base_model_relation": "quantized",
        "license": "apache-2.0",
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "quantized_by": "A. Golfer",
        "tags": ["gguf", "gguf-golf", "llama.cpp"],
    }
    rows = [line for line in body.splitlines() if line.startswith("| [golf")]
    assert len(rows) == 2 and "golf-bf16" not in body.split("## Run it")[0].split("## Files")[1]
    assert any("gguf-golf's llama.cpp" in row and "tcq3" in row for row in rows)
    assert any("any llama.cpp" in row for row in rows)
    for program in ("llama-cli", "ollama run", "LM Studio", "llama_cpp", "gguf-golf chat"):
        assert program in body


def test_nothing_of_this_machine_is_published(folder: Path) -> None:
    made = lay_out(folder, folder / "out", ABOUT, split_bytes=1 << 40)
    for name in ("README.md", "report.html", "results.json", "SHA256SUMS", "table.csv"):
        assert str(folder) not in (made.folder / name).read_text()
        assert str(Path.home()) not in (made.folder / name).read_text()


def test_checksums_are_the_files(folder: Path) -> None:
    made = lay_out(folder, folder / "out", ABOUT, split_bytes=1 << 40)
    lines = (made.folder / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((made.folder / name).read_bytes()).hexdigest() == digest


def test_a_split_file_is_the_same_model_to_us_and_to_llama_cpp(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    whole = tiny("tcq3")
    parts = split(whole, tmp_path, 600_000)
    assert len(parts) > 2 and parts[0].name == f"golf-tiny-tcq3-00001-of-{len(parts):05d}.gguf"
    one, other = open_model(whole, allow_requantize=True), open_model(parts[1], allow_requantize=True)
    assert [(t.name, t.shape, t.source_type) for t in one.tensors] == [
        (t.name, t.shape, t.source_type) for t in other.tensors
    ]
    texts = ["".join(run(str(path), "The city of", 8, Sampling(), chat=False, threads=1)) for path in (whole, parts[0])]
    assert texts[0] == texts[1]


def test_large_files_are_split_in_the_layout(folder: Path) -> None:
    made = lay_out(folder, folder / "out", ABOUT, split_bytes=1_000_000)
    assert sum("-of-" in name for name in made.files) >= 4
    assert "-00001-of-" in (made.folder / "README.md").read_text()


def test_a_layout_replaces_only_a_layout(folder: Path) -> None:
    lay_out(folder, folder / "out", ABOUT, split_bytes=1 << 40)
    lay_out(folder, folder / "out", ABOUT, split_bytes=1 << 40)
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="was not laid out by gguf-golf publish"):
        lay_out(folder, folder / "mine", ABOUT, split_bytes=1 << 40)
    assert (folder / "mine" / "thesis.txt").exists()


def test_what_is_missing_is_a_note(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "golf.gguf").write_bytes(tiny("q8_0").read_bytes())
    made = lay_out(tmp_path, tmp_path / "out", About(), split_bytes=1 << 40)
    assert [note.split(":")[0].split(" in ")[0] for note in made.notes] == ["no results", "no licence", "no base model"]
    with pytest.raises(InputError, match="holds no GGUF model"):
        lay_out(tmp_path / "absent", tmp_path / "out2", About(), split_bytes=1 << 40)


def test_the_command_lays_out_without_uploading(folder: Path) -> None:
    result = CliRunner().invoke(cli.cli, ["publish", "--dry-run", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)
    assert "README.md" in listed["files"] and listed["address"] is None
    refused = CliRunner().invoke(cli.cli, ["publish", str(folder)])
    assert refused.exit_code == 2 and "--repo" in refused.output


def test_the_report_alone_still_has_its_markdown(folder: Path) -> None:
    write_report(folder / "results.json", markdown=folder / "report.md")
    assert "Which file should I take?" in (folder / "report.md").read_text()
