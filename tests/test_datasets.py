"""Data sets: hashes are compared, origins and local copies both serve, and a suite names a set and not a path."""

import hashlib
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from gguf_golf import cli, datasets
from gguf_golf.datasets import DataSet, fetch, find
from gguf_golf.errors import InputError
from gguf_golf.evaluate.suite import read_suite
from gguf_golf.evaluate.tasks.kinds.gpqa import read_records

ROOT = Path(__file__).parents[1]
TEXT = b"a text to measure on\n" * 200


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set with a file that comes as it is and one in an archive; returns the folder that both come from."""
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "plain.txt").write_bytes(TEXT)
    (origin / "packed.txt").write_bytes(TEXT[::-1])
    with zipfile.ZipFile(origin / "all.zip", "w") as archive:
        archive.writestr("inner/packed.txt", TEXT[::-1])
    hashes = {"plain.txt": hashlib.sha256(TEXT).hexdigest(), "packed.txt": hashlib.sha256(TEXT[::-1]).hexdigest()}
    urls = {
        "plain.txt": (origin / "plain.txt").as_uri(),
        "packed.txt": f"{(origin / 'all.zip').as_uri()}#inner/packed.txt",
    }
    monkeypatch.setitem(datasets.DATASETS, "toy", DataSet("a toy", "CC0", hashes, urls))
    monkeypatch.setattr(datasets, "cache_dir", lambda: tmp_path / "cache")
    return origin


@pytest.mark.parametrize("by_path", [False, True])
def test_a_set_is_fetched_from_its_origin_or_a_copy(toy: Path, by_path: bool) -> None:
    with pytest.raises(InputError, match="run `gguf-golf data fetch toy`"):
        find("toy/plain.txt")
    fetch("toy", toy if by_path else None)
    assert find("toy/plain.txt").read_bytes() == TEXT
    assert find("toy/packed.txt").read_bytes() == TEXT[::-1]


def test_another_hash_is_refused_and_nothing_kept(toy: Path) -> None:
    (toy / "plain.txt").write_bytes(TEXT + b"!")
    with pytest.raises(InputError, match=r"plain\.txt of toy has SHA-256"):
        fetch("toy")
    assert not list((datasets.data_dir() / "toy").iterdir())


def test_what_cannot_be_had_says_what_to_do(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy / "all.zip").unlink()
    with pytest.raises(InputError, match="use --from FOLDER"):
        fetch("toy")
    with pytest.raises(InputError, match=r"has no plain\.txt"):
        fetch("toy", toy.parent)
    with pytest.raises(InputError, match="did you mean 'toy'"):
        fetch("toyy")
    with pytest.raises(InputError, match=r"did you mean 'plain\.txt'"):
        find("toy/plane.txt")
    with pytest.raises(InputError, match="--from FOLDER"):
        fetch("mmlu")


def test_a_suite_names_a_set(toy: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text('[[texts]]\nfile = "data:toy/plain.txt"\n')
    with pytest.raises(InputError, match="data fetch toy"):
        read_suite(suite)
    fetch("toy")
    assert read_suite(suite).texts[0].file == find("toy/plain.txt")


def test_the_commands_list_and_fetch() -> None:
    listed = CliRunner().invoke(cli.cli, ["data", "list"]).output
    assert all(name in listed and each.licence in listed for name, each in datasets.DATASETS.items())
    assert CliRunner().invoke(cli.cli, ["data", "fetch", "toy"]).exit_code == 0
    assert "toy         here" in CliRunner().invoke(cli.cli, ["data", "list"]).output


def test_every_shipped_suite_names_known_data_or_what_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(datasets, "find", lambda name: asked.append(name) or ROOT / "README.md")
    for path in (ROOT / "eval" / "suites").glob("*.toml"):
        read_suite(path)
    assert asked
    for name in asked:
        set_name, _, file = name.partition("/")
        assert file in datasets.DATASETS[set_name].files, name


def test_one_shipped_suite_needs_nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "find", lambda name: pytest.fail(f"{name} has to be fetched"))
    suite = read_suite(ROOT / "eval" / "suites" / "embedded.toml")
    assert suite.texts and all(text.file.is_relative_to(ROOT) for text in suite.texts)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("wikitext-2", "wikitext-2"),
        ("hellaswag", "choices/hellaswag"),
        ("piqa", "choices/piqa"),
        ("lambada", "choices/lambada"),
        ("mmlu", "choices/mmlu"),
        ("gpqa", "gpqa"),
    ],
)
def test_the_hashes_are_those_of_the_known_files(name: str, folder: str) -> None:
    source = ROOT.parent / "shared" / "data" / folder
    if not source.is_dir():
        pytest.skip(f"needs {source}")
    fetch(name, source)
    assert datasets.is_here(name)
    if name == "gpqa":
        assert len(read_records(find("gpqa/dataset.zip"))) == 198, "the password comes along"
