"""Move to a newer llama.cpp: the mechanical part.

    .venv/bin/python patches/update.py llama-cpp-python 0.3.37
    .venv/bin/python patches/update.py xllamacpp --build

Fetches that source distribution (the newest one where no version is given), tries every patch on its llama.cpp and
merges what moved. What does not fit is left as .rej files in a tree that it names; the rest is in CONTRIBUTING.md. When
all patches fit a llama-cpp-python, it rewrites the patches and the pin. xllamacpp often has a newer llama.cpp, but the
bindings are llama-cpp-python's: there it only reports, and the checkout stays as it is. With --build it then compiles
that llama.cpp for the CPU, as a runtime is compiled, and runs upstream's test of every quant type.

Structs and functions of llama.h that changed are listed: the bindings know the old ones.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from gguf_golf.errors import GolfError
from gguf_golf.runtime import build, pin, process, source
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.config import Options

PIN = Path(pin.__file__)
PINNED = "llama-cpp-python"

FOLDERS = {PINNED: "vendor/llama.cpp", "xllamacpp": "thirdparty/llama.cpp"}
"""Where a package's source distribution has llama.cpp."""


def main(package: str, version: str | None, *, compiles: bool = False) -> int:
    """Try `version` of `package`; returns the exit code: 0 when all patches fit, 1 when one needs a hand.

    `compiles`: build it, too. Raises BuildError when it cannot be fetched, compiled, or fails upstream's test.
    """
    requirement = package if version is None else f"{package}=={version}"
    work = Path(tempfile.mkdtemp(prefix=f"{package}-"))
    # xllamacpp's metadata takes Cython, which pip installs aside; for llama-cpp-python it would compile cmake there
    isolation = ("--no-build-isolation",) if package == PINNED else ()
    source.pip(
        *("download", "--no-deps", *isolation, "--no-binary", package, "--dest", work, requirement),
        what=f"fetching {requirement}",
    )
    (archive,) = work.glob("*.tar.gz")
    version = archive.name.removesuffix(".tar.gz").rpartition("-")[2]
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    tree = work / archive.name.removesuffix(".tar.gz") / FOLDERS[package]
    (tree / ".git").unlink(missing_ok=True)  # a submodule's pointer to nowhere
    git(tree, "init", "--quiet")
    git(tree, "add", "--all", "--force")
    commit(tree, "upstream")

    for own in sorted((source.PATCHES / "src").rglob("*")):
        if own.is_file() and (tree / own.relative_to(source.PATCHES / "src")).exists():
            print(f"CLASH {own}: upstream has a file of this name now")

    renewed: dict[Path, str] = {}
    rejected = False
    for patch in sorted(source.PATCHES.resolve().glob("*.patch")):
        # --reject applies the hunks that fit and leaves the others beside their file
        done = git(tree, "apply", "--reject", "--recount", "-C1", str(patch), check=False)
        fits = done.returncode == 0
        rejected |= not fits
        print(f"{'fits  ' if fits else 'REJECT'} {patch.name}")
        for line in done.stderr.splitlines():
            if not fits and line.startswith("error: "):
                print(f"       {line.removeprefix('error: ')}")
        git(tree, "add", "--all", "--force", ":!*.rej")
        words = patch.read_text().partition("diff --git")[0]
        renewed[patch] = words + git(tree, "diff", "--cached").stdout
        commit(tree, patch.name)

    pinned, found = (declarations(path / "include" / "llama.h") for path in (source.source_dir(), tree))
    for name in sorted(pinned):
        if found.get(name) != pinned[name]:
            print(f"{'CHANGED' if name in found else 'REMOVED'} {name}: the bindings know the old one")

    if rejected:
        print(f"\nFix these patches by hand: the hunks that did not fit are .rej files in {tree}")
        return 1
    if compiles:
        compile_tree(tree)
        print(f"\nThe llama.cpp of {package} {version} compiles with them, and test-quantize-fns passes")
    if package != PINNED:
        print(f"\nAll patches fit {package} {version} (the tree is {tree}); the pin stays {PINNED} {pin.VERSION}")
        return 0
    for patch, text in renewed.items():
        patch.write_text(text)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    PIN.write_text(PIN.read_text().replace(pin.VERSION, version).replace(pin.SHA256, digest))
    shutil.rmtree(work)
    print(f"\nAll patches fit; patches/ and {PIN.name} are written for {version}. Now: make test")
    return 0


def compile_tree(tree: Path) -> None:
    """Compile a patched llama.cpp with our sources and run upstream's test of types; raises BuildError."""
    shutil.copytree(source.PATCHES / "src", tree, dirs_exist_ok=True)
    shutil.rmtree(tree / ".git")
    place = cache_dir() / "tree" / "tried"  # one for all that are tried: the next one compiles what differs
    build.compile_source(tree, place, Options(), ("lib", "tests"))
    process.run([place / "build" / "bin" / "test-quantize-fns"], "running test-quantize-fns", place / "test.log")


def declarations(header: Path) -> dict[str, str]:
    """The structs and functions of llama.h, by name, as text without comments and spaces."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", header.read_text(encoding="utf-8"), flags=re.DOTALL)
    structs = re.findall(r"\bstruct\s+(llama_\w+)\s*\{(.*?)\n\s*\}", text, re.DOTALL)
    functions = [
        (re.findall(r"(llama_\w+)\s*\(", api), api) for api in re.findall(r"\bLLAMA_API\b(.*?);", text, re.DOTALL)
    ]
    found = structs + [(names[0], api) for names, api in functions if names]
    return {name: "".join(declaration.split()) for name, declaration in found}


def commit(tree: Path, message: str) -> None:
    """Commit what is staged, whatever the user's git configuration is."""
    identity = ("-c", "user.name=update.py", "-c", "user.email=update.py@localhost", "-c", "commit.gpgsign=false")
    git(tree, *identity, "commit", "--quiet", "--allow-empty", "--message", message)


def git(tree: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run git in `tree` without the user's configuration."""
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", *arguments], cwd=tree, env=env, check=check, capture_output=True, text=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=f"Move to a newer llama.cpp (the pin is {PINNED} {pin.VERSION}).")
    parser.add_argument("package", choices=FOLDERS)
    parser.add_argument("version", nargs="?", help="the newest one where it is missing")
    parser.add_argument("--build", action="store_true", help="compile it for the CPU and run test-quantize-fns")
    arguments = parser.parse_args()
    try:
        sys.exit(main(arguments.package, arguments.version, compiles=arguments.build))
    except GolfError as error:
        sys.exit(f"error: {error}")
