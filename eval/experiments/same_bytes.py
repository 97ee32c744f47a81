"""Question: does this checkout write the same bytes as an earlier revision?

Makes a git worktree of BASE_REV in a temporary folder and runs both trees' command line on the same inputs: golf-tiny
(embedded) in every type, plain, with an imatrix and with Hessians; a recipe; a conversion that is killed and resumed;
and with --model a larger model in tcq3. Prints one line for each file and exits 1 if any SHA-256 differs. Provenance
is part of the files: gguf_golf.version has to be the same in both trees.

    python eval/experiments/same_bytes.py BASE_REV --model MODEL --text TEXT
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from gguf_golf.formats import types
from gguf_golf.models.hashing import file_sha256

HERE = Path(__file__).resolve().parents[2]
TINY = HERE / "gguf_golf" / "data" / "golf-tiny"
TEXT = HERE / "gguf_golf" / "data" / "demo" / "calibration.txt"

COMMANDS = """
import json, sys
from gguf_golf.cli import cli
for words in json.load(sys.stdin):
    print("gguf-golf", *words, flush=True)
    cli(words, standalone_mode=False)
"""

Words = list[str]


@click.command()
@click.argument("base_rev")
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="Also this model in tcq3.")
@click.option("--text", type=click.Path(path_type=Path, exists=True), default=TEXT, help="Its calibration text.")
@click.option("--chunks", default=4, show_default=True, metavar="N", help="Calibrate --model on N chunks.")
@click.option("--only", help="Comma-separated types of golf-tiny instead of all of them.")
@click.option("--threads", default=2, show_default=True)
def main(base_rev: str, model: Path | None, text: Path, chunks: int, only: str | None, threads: int) -> None:
    """Compare what this checkout writes with what BASE_REV writes."""
    names = only.split(",") if only else [t.name for t in types.ALL.values() if t.holds_weights and t.is_self_contained]
    with tempfile.TemporaryDirectory() as temporary, worktree(base_rev, Path(temporary) / "tree") as base:
        folder = Path(temporary)
        inputs = folder / "inputs"
        run(base, inputs, prepare(model, text, chunks, threads))
        jobs = conversions(inputs, names, model, threads)
        outputs = {"base": folder / "base", "here": folder / "here"}
        for tree, out in ((base, outputs["base"]), (HERE, outputs["here"])):
            run(tree, out, prepare(None, TEXT, chunks, threads)[:2] + jobs)
            kill_and_resume(tree, out, convert(TINY, "resumed.gguf", "tcq4", threads))
        files = sorted({path.name for out in outputs.values() for path in out.glob("*.gguf")})
        different = [name for name in files if not same(name, *outputs.values())]
    if different:
        raise click.ClickException(f"{len(different)} of {len(files)} files differ: {', '.join(different)}")
    click.echo(f"{len(files)} files, all the same as at {base_rev}")


def prepare(model: Path | None, text: Path, chunks: int, threads: int) -> list[Words]:
    """What makes the inputs that both trees share: golf-tiny's imatrix, Hessians and recipe, and the model's."""

    def calibrated(source: Path, name: str, words: Path) -> list[Words]:
        collect = ["imatrix", f"{name}.gguf", "--text", str(words), "-o", f"{name}-imatrix.gguf"]
        collect += ["--hessian", f"{name}-hessian.gguf", "--chunks", str(chunks), "--threads", str(threads)]
        return [convert(source, f"{name}.gguf", "bf16", threads), collect]

    jobs = calibrated(TINY, "tiny", TEXT)
    jobs.append(["sensitivity", "tiny.gguf", "--quick", "--imatrix", "tiny-imatrix.gguf", "-o", "tiny.json"])
    jobs.append(["plan", "tiny.gguf", "--budget", "1.8MB", "--sensitivity", "tiny.json", "-o", "tiny.toml"])
    return jobs if model is None else [*jobs, *calibrated(model, "model", text)]


def conversions(inputs: Path, names: list[str], model: Path | None, threads: int) -> list[Words]:
    """The commands whose files are compared."""
    imatrix = ["--imatrix", str(inputs / "tiny-imatrix.gguf")]
    hessian = ["--hessian", str(inputs / "tiny-hessian.gguf")]
    jobs = []
    for name in names:
        if not types.get(name).needs_imatrix:
            jobs.append(convert(TINY, f"plain-{name}.gguf", name, threads))
        jobs.append([*convert(TINY, f"imatrix-{name}.gguf", name, threads), *imatrix])
        if types.get(name).tcq:
            jobs.append([*convert(TINY, f"hessian-{name}.gguf", name, threads), *imatrix, *hessian])
    recipe = ["--recipe", str(inputs / "tiny.toml"), "--threads", str(threads)]
    jobs.append(["quantize", str(TINY), *recipe, "-o", "recipe.gguf"])
    jobs.append(["quantize", str(TINY), *recipe, *hessian, "-o", "recipe-hessian.gguf"])
    if model is not None:
        words = ["--imatrix", str(inputs / "model-imatrix.gguf")]
        jobs.append([*convert(model, "model-tcq3.gguf", "tcq3", threads), *words])
        words += ["--hessian", str(inputs / "model-hessian.gguf")]
        jobs.append([*convert(model, "model-tcq3-hessian.gguf", "tcq3", threads), *words])
    return jobs


def convert(source: Path, out: str, type_name: str, threads: int) -> Words:
    """The words of one `convert` command."""
    return ["convert", str(source), "-o", out, "--type", type_name, "--threads", str(threads)]


@contextmanager
def worktree(revision: str, path: Path) -> Iterator[Path]:
    """A worktree of this repository at `revision`, removed afterwards."""
    git = ["git", "-C", str(HERE), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(path), revision], check=True)
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True)


def python(tree: Path) -> tuple[Words, dict[str, str]]:
    """A Python that imports gguf_golf from `tree`, and its environment."""
    return [sys.executable, "-c"], {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def run(tree: Path, folder: Path, jobs: list[Words]) -> None:
    """Run the tree's command line in `folder`, once for each job."""
    folder.mkdir(exist_ok=True)
    words, environment = python(tree)
    log = folder / "log.txt"
    with log.open("w") as output:
        streams = {"stdout": output, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(
            [*words, COMMANDS], cwd=folder, env=environment, input=json.dumps(jobs), check=False, **streams
        )
    if done.returncode:
        raise click.ClickException(f"{tree} failed:\n{log.read_text()[-2000:]}")


def kill_and_resume(tree: Path, folder: Path, job: Words) -> None:
    """Kill (SIGKILL) a conversion once its journal names a few finished tensors, then run it again."""
    words, environment = python(tree)
    command = [*words, COMMANDS]
    journal = folder / f"{job[job.index('-o') + 1]}.journal"
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, text=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([job]))
    process.stdin.close()
    while process.poll() is None and not (journal.is_file() and len(journal.read_bytes().splitlines()) > 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    if process.wait() == 0:
        raise click.ClickException("the conversion was too fast to be killed")
    run(tree, folder, [job])


def same(name: str, base: Path, here: Path) -> bool:
    """Whether both trees wrote this file with the same bytes; says so."""
    paths = [base / name, here / name]
    hashes = [file_sha256(path) if path.is_file() else "absent" for path in paths]
    click.echo(f"{'same' if hashes[0] == hashes[1] else 'DIFFERENT'}  {hashes[1][:16]}  {name}")
    return hashes[0] == hashes[1]


if __name__ == "__main__":
    main()
