"""Move to the llama.cpp of a newer llama-cpp-python: the mechanical part.

    .venv/bin/python patches/update.py 0.3.37

Fetches that source distribution, tries every patch on its llama.cpp, merges what moved, and writes the patches and
the pin anew when all of them fit. What does not fit is left as .rej files in a tree that it names; the rest is in
CONTRIBUTING.md. The checkout is changed only when every patch applies.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from gguf_golf.runtime import pin, source

PIN = Path(pin.__file__)


def main(version: str) -> int:
    """Try `version`; returns the exit code: 0 when all patches fit and are written, 1 when one needs a hand."""
    work = Path(tempfile.mkdtemp(prefix=f"llama-cpp-python-{version}-"))
    source.pip(
        *("download", "--no-deps", "--no-build-isolation", "--no-binary", "llama-cpp-python"),
        *("--dest", work, f"llama-cpp-python=={version}"),
        what=f"fetching llama-cpp-python {version}",
    )
    (archive,) = work.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    tree = work / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
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

    if rejected:
        print(f"\nMend these patches by hand: the hunks that did not fit are .rej files in {tree}")
        return 1
    for patch, text in renewed.items():
        patch.write_text(text)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    PIN.write_text(PIN.read_text().replace(pin.VERSION, version).replace(pin.SHA256, digest))
    shutil.rmtree(work)
    print(f"\nAll patches fit; patches/ and {PIN.name} are written for {version}. Now: make test")
    return 0


def commit(tree: Path, message: str) -> None:
    """Commit what is staged, whatever the user's git configuration is."""
    identity = ("-c", "user.name=update.py", "-c", "user.email=update.py@localhost", "-c", "commit.gpgsign=false")
    git(tree, *identity, "commit", "--quiet", "--allow-empty", "--message", message)


def git(tree: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run git in `tree` without the user's configuration."""
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", *arguments], cwd=tree, env=env, check=check, capture_output=True, text=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} VERSION-OF-LLAMA-CPP-PYTHON (the pin is {pin.VERSION})")
    sys.exit(main(sys.argv[1]))
