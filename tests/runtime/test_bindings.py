"""The link between an environment's bindings and a runtime, on a stand-in for the installed package."""

from pathlib import Path

import pytest

from gguf_golf.errors import BuildError
from gguf_golf.runtime import bindings, pin


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages" / "llama_cpp"
    folder.mkdir(parents=True)
    monkeypatch.setattr(bindings, "_installed", lambda: folder)
    return folder


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """site-packages may not be written to (tests may run as root); pip is a stand-in. Returns where our copy goes."""
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bindings, "_is_writable", lambda folder: False)
    monkeypatch.setattr(bindings, "sdist", lambda: tmp_path / "archive")
    monkeypatch.setattr(bindings, "verify", lambda archive: None)

    def pip(*arguments: str | Path, what: str, env: dict[str, str]) -> None:
        (Path(arguments[arguments.index("--target") + 1]) / "llama_cpp").mkdir(parents=True)

    monkeypatch.setattr(bindings, "pip", pip)
    return tmp_path / "cache" / "bindings" / pin.VERSION


def runtime(tmp_path: Path, name: str) -> Path:
    (tmp_path / name / "lib").mkdir(parents=True)
    return tmp_path / name


def test_a_link_is_found_and_replaced(package: Path, tmp_path: Path) -> None:
    assert bindings.linked() is None
    for name in ("first", "second"):
        made = runtime(tmp_path, name)
        bindings.link(made)
        assert bindings.linked() == made
    assert [path.name for path in package.iterdir()] == ["lib"]


def test_a_runtime_that_was_deleted_is_no_runtime(package: Path, tmp_path: Path) -> None:
    made = runtime(tmp_path, "gone")
    bindings.link(made)
    (made / "lib").rmdir()
    assert bindings.linked() is None


def test_libraries_of_a_stock_installation_are_left_alone(package: Path, tmp_path: Path) -> None:
    (package / "lib").mkdir()
    with pytest.raises(BuildError, match="pip uninstall llama-cpp-python"):
        bindings.link(runtime(tmp_path, "ours"))


def test_bindings_of_another_version_are_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bindings.importlib.metadata, "version", lambda name: "0.1.0")
    with pytest.raises(BuildError, match=r"has llama-cpp-python 0\.1\.0"):
        bindings.ensure_installed()


def test_a_read_only_environment_gets_a_copy_of_the_bindings_in_the_cache(
    read_only: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bindings, "_installed", lambda: None)
    assert bindings.import_path() is None
    bindings.ensure_installed()
    bindings.link(runtime(tmp_path, "ours"))
    assert bindings.linked() == tmp_path / "ours"
    assert bindings.import_path() == read_only
    assert [path.name for path in read_only.parent.iterdir()] == [pin.VERSION]


def test_a_link_of_a_read_only_environment_is_taken_while_it_fits_and_left_alone_otherwise(
    package: Path, read_only: Path, tmp_path: Path
) -> None:
    (package / "lib").symlink_to(runtime(tmp_path, "theirs") / "lib")
    assert bindings.linked() == tmp_path / "theirs"
    assert bindings.import_path() is None
    bindings.ensure_installed()
    bindings.link(runtime(tmp_path, "ours"))
    assert bindings.linked() == tmp_path / "ours"
    assert bindings.import_path() == read_only
    assert (package / "lib").readlink().parent == tmp_path / "theirs"
