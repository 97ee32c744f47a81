"""From the pure wheel, one that brings a portable runtime along, so that its users need no compiler (`make wheel`).

    python -m gguf_golf.runtime.binary_wheel dist/gguf_golf-VERSION-py3-none-any.whl

writes dist/gguf_golf-VERSION-py3-none-PLATFORM.whl. auditwheel says which systems its libraries run on: the tag.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from gguf_golf.errors import BuildError
from gguf_golf.runtime import build, prebuilt
from gguf_golf.runtime.config import Options
from gguf_golf.runtime.source import sdist, verify


def add_runtime(pure: Path) -> Path:
    """Write the binary wheel beside the pure one; returns its path. Raises BuildError."""
    if sys.platform != "linux":
        raise BuildError("a wheel with libraries is made on Linux only; elsewhere the first use builds them")
    runtime = build.build(Options(portable=True), ("lib", "tools"))
    with tempfile.TemporaryDirectory() as folder:
        run("wheel", "unpack", pure, "--dest", folder)
        (root,) = Path(folder).iterdir()
        place = root / "gguf_golf" / "runtime" / prebuilt.FOLDER.name
        for name in ("lib", "tools"):
            shutil.copytree(runtime / name, place / prebuilt.RUNTIME.name / name)
        shutil.copy(runtime / "manifest.json", place / prebuilt.RUNTIME.name)
        for binary in place.rglob("*"):
            if binary.is_file() and binary.suffix != ".json":
                subprocess.run(["strip", "--strip-unneeded", binary], check=True)
        unpack_bindings(place)
        (metadata,) = root.glob("*.dist-info/WHEEL")
        tag(metadata, native := sysconfig.get_platform().replace("-", "_"))
        run("wheel", "pack", root, "--dest-dir", folder)
        (untagged,) = Path(folder).glob("*.whl")
        tag(metadata, platform_of(untagged) or native)
        run("wheel", "pack", root, "--dest-dir", folder)
        untagged.unlink()
        (made,) = Path(folder).glob("*.whl")
        return Path(shutil.move(made, pure.with_name(made.name)))


def unpack_bindings(place: Path) -> None:
    """The package llama_cpp of the pinned source distribution, and the licences of both projects."""
    archive = sdist()
    verify(archive)
    with tarfile.open(archive) as files:
        for member in files:
            name = member.name.partition("/")[2]
            if re.fullmatch(r"llama_cpp/(.*\.py|py\.typed)", name) and member.isfile():
                target = place / prebuilt.BINDINGS.name / name
            elif name in ("LICENSE.md", "vendor/llama.cpp/LICENSE"):
                target = place / f"LICENSE-{Path(name).parent.name or 'llama-cpp-python'}"
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            content = files.extractfile(member)
            assert content is not None
            target.write_bytes(content.read())


def tag(metadata: Path, platform: str) -> None:
    """Say in the file WHEEL that the wheel is for this platform, and for any Python 3."""
    text = metadata.read_text(encoding="utf-8").replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    metadata.write_text(re.sub(r"^Tag: .*$", f"Tag: py3-none-{platform}", text, flags=re.MULTILINE), encoding="utf-8")


def platform_of(wheel: Path) -> str | None:
    """The widest platform tag that the libraries of a wheel allow, by auditwheel; None if it knows none."""
    said = run("auditwheel", "show", wheel)
    found = re.search(r'"((?:many|musl)linux_\w+)"', said)
    return found[1] if found else None


def run(module: str, *arguments: str | Path) -> str:
    """What a module of this Python prints when it is run."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    made = add_runtime(Path(sys.argv[1]))
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB")
