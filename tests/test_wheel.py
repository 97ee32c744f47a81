"""What `pip install` gets: everything that runs, none of the tests."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a wheel that is built from the files that git knows, away from this checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT).decode().split("\0")
    for name in filter(None, listed):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to(os.readlink(ROOT / name))
        elif (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", out, source], check=True)
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_has_every_file_that_the_package_reads(names: set[str]) -> None:
    wanted = (
        "gguf_golf/py.typed",
        "gguf_golf/use/page/index.html",
        "gguf_golf/report/templates/report.html.j2",
        "gguf_golf/publish/templates/card.md.j2",
        "gguf_golf/data/demo/demo.txt",
        "gguf_golf/data/golf-tiny/model.safetensors",
        "gguf_golf/runtime/patches/src/ggml/src/ggml-tcq.h",
    )
    assert not [name for name in wanted if name not in names]
    patches = {f"gguf_golf/runtime/patches/{path.name}" for path in (ROOT / "patches").glob("*.patch")}
    assert patches and patches <= names


def test_every_module_is_in_the_wheel_and_no_test(names: set[str]) -> None:
    modules = subprocess.check_output(["git", "ls-files", "gguf_golf/*.py"], cwd=ROOT, text=True).split()
    assert not [name for name in modules if name not in names]
    assert not [name for name in names if name.startswith(("tests/", "eval/"))]
