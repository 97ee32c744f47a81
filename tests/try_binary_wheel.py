"""The wheel that brings a runtime along, in a fresh environment without a compiler: from a folder to an answer.

    python -m tests.try_binary_wheel dist/gguf_golf-VERSION-py3-none-PLATFORM.whl

Not part of the suite: the wheel takes minutes to build (`make test-wheel` does both).
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import gguf_golf
from gguf_golf.runtime.cache import ROOMS

STEPS = (
    "convert {model} -o base.gguf",
    "imatrix base.gguf -o imatrix.gguf --chunks 4",
    "convert base.gguf -o small.gguf --type tcq3 --imatrix imatrix.gguf",
    "eval base.gguf small.gguf --chunks 2 --json results.json",
    "report results.json -o report.html",
    "run small.gguf -p London -n 8 --raw",
    "tool bench -m small.gguf -p 32 -n 8 -r 1",
    "runtime info",
)


def try_wheel(wheel: Path) -> None:
    """Raises CalledProcessError where a step fails, AssertionError if something was built."""
    model = Path(gguf_golf.__file__).parent / "data" / "golf-tiny"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        programs = folder / "venv" / "bin"
        # nothing but the environment's own programs: no compiler, no git, no cmake of the system's
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LLAMA_"))}
        env |= {"PATH": str(programs), "GGUF_GOLF_CACHE": str(folder / "cache")}
        subprocess.run([programs / "pip", "install", "--quiet", wheel.resolve()], env=env, check=True)
        for step in STEPS:
            print(f"gguf-golf {step}", flush=True)
            arguments = step.format(model=model).split()
            subprocess.run([programs / "gguf-golf", *arguments], cwd=folder, env=env, check=True)
        kept = {path.name for path in (folder / "cache").iterdir()}
        built = kept & {room for room, kind in ROOMS.items() if kind == "builds"}
        assert not built, f"something was built or fetched: {built}"
    print("all steps ran, and nothing was built")


if __name__ == "__main__":
    try_wheel(Path(sys.argv[1]))
