"""The pinned llama.cpp: fetched with pip, verified, unpacked, patched. Nothing here builds."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gguf_golf.errors import BuildError
from gguf_golf.files import locked, sync
from gguf_golf.runtime import pin, process
from gguf_golf.runtime.cache import cache_dir

# a link to the checkout's patches/, so that one path is right for a checkout and for an installed wheel
PATCHES = Path(__file__).parent / "patches"

# read by neither the build nor the conversion of models: 120 of 176 MB, and a .git that points nowhere
_UNUSED = (".git", "benches", "docs", "media", "models")


def source_dir() -> Path:
    """The patched llama.cpp tree, created if it is not in the cache yet. Treat it as read-only.

    Raises BuildError if it cannot be fetched, is not the pinned file, or a patch does not apply.
    """
    while not (target := cache_dir() / "source" / source_key()).is_dir():
        with locked(target, wait=True):
            if not target.is_dir():
                _make(target)
    return target


def source_key() -> str:
    """Names the patched source: a hash of the pin, every patch and every file of ours."""
    digest = hashlib.sha256(pin.SHA256.encode())
    for path in [*_patches(), *_own_sources()]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PATCHES)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def sdist() -> Path:
    """The pinned source distribution, fetched with pip if it is not in the cache yet.

    Raises BuildError if pip fails or the file's SHA-256 is not the pin's.
    """
    path = cache_dir() / "sdist" / f"llama_cpp_python-{pin.VERSION}.tar.gz"
    if not path.is_file():
        with locked(path, wait=True):
            if not path.is_file():
                _fetch(path)
    return path


def verify(path: Path) -> None:
    """Raise BuildError unless the file at `path` is the pinned source distribution."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pin.SHA256:
        raise BuildError(
            f"{path} is not the pinned llama-cpp-python {pin.VERSION}: "
            f"its sha256 is {found}, expected {pin.SHA256}; delete it and try again"
        )


def pip(*arguments: str | Path, what: str, env: dict[str, str] | None = None) -> None:
    """Run this environment's pip; raises BuildError with the end of its output if it fails."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", *arguments, "--progress-bar", "raw", "--disable-pip-version-check"]
    process.run(command, what, cache_dir() / "pip.log", env)


def _patches() -> list[Path]:
    return sorted(PATCHES.glob("*.patch"))


def _own_sources() -> list[Path]:
    return sorted(path for path in (PATCHES / "src").rglob("*") if path.is_file() and path.name[0] != ".")


def _fetch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        # pip runs a source distribution's build backend to learn its metadata; given a hash, it compares that first
        wanted = Path(folder) / "requirement.txt"
        wanted.write_text(f"llama-cpp-python=={pin.VERSION} --hash=sha256:{pin.SHA256}\n")
        # --no-binary for this one package only: for all of them pip would compile cmake itself
        pip(
            *("download", "--require-hashes", "--no-deps", "--no-build-isolation", "--no-binary", "llama-cpp-python"),
            *("--dest", folder, "--requirement", wanted),
            what=f"fetching llama-cpp-python {pin.VERSION}",
        )
        fetched = Path(folder) / path.name
        verify(fetched)
        sync(fetched)
        fetched.rename(path)


def _make(target: Path) -> None:
    archive = sdist()
    verify(archive)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        tree = Path(folder) / "llama.cpp"
        with tarfile.open(archive) as tar:
            tar.extractall(folder, members=_vendored(tar), filter="data")
        for patch in _patches():
            _apply(patch, tree)
        for own in _own_sources():
            copy = tree / own.relative_to(PATCHES / "src")
            if copy.exists():
                raise BuildError(f"{own} would replace a file of llama.cpp; write a .patch for it, or rename it")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(own, copy)
        if source_key() == target.name:  # else patches/ changed meanwhile, and source_dir() tries again
            os.sync()  # thousands of small files: once for all of them
            tree.rename(target)


def _vendored(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The archive's llama.cpp, without the unused folders, as llama.cpp/..."""
    prefix = f"llama_cpp_python-{pin.VERSION}/vendor/"
    for member in tar:
        inside = Path(member.name.removeprefix(prefix))
        if member.name.startswith(prefix + "llama.cpp/") and inside.parts[1] not in _UNUSED:
            yield member.replace(name=str(inside))


def _apply(patch: Path, tree: Path) -> None:
    # the ceiling keeps git from mistaking a checkout that contains the cache for the patch's repository (it would then
    # skip files silently); the user's configuration must not change line endings
    env = os.environ | {
        "GIT_CEILING_DIRECTORIES": str(tree.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    env.pop("GIT_DIR", None)
    command = ["git", "apply", "--whitespace=nowarn", str(patch.resolve())]
    try:
        result = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError("git is not installed, and applying patches/ takes it: install git") from None
    if result.returncode != 0:
        raise BuildError(
            f"{patch.name} does not apply to the llama.cpp of llama-cpp-python {pin.VERSION}:\n{result.stderr.rstrip()}"
        )
