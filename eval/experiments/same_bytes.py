"""Question: does this checkout write the same bytes as an earlier revision?

Makes a git worktree of BASE_REV in a temporary folder and runs both trees' command line on the same inputs: golf-tiny
(embedded) in every type, plain, with an imatrix and with Hessians; a recipe; a conversion that is killed and resumed;
and with --model a larger model in tcq3. Prints one line for each file and exits 1 if any SHA-256 differs. Where
metadata was changed on purpose, --metadata-may-differ compares the tensors alone.

    python eval/experiments/same_bytes.py BASE_REV --model MODEL --text TEXT
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import register_with_gguf
from gguf_golf.models.gguf_file import read_gguf
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
@click.option("--metadata-may-differ", is_flag=True, help="Compare the tensors alone.")
@click.option("--threads", default=2, show_default=True)
def main(
    base_rev: str,
    model: Path | None,
    text: Path,
    chunks: int,
    only: str | None,
    metadata_may_differ: bool,
    threads: int,
) -> None:
    """Compare what this checkout writes with what BASE_REV writes."""
    register_with_gguf()
    names = (
        only.split(",")
        if only
        else [t.name for t in quant_types.ALL.values() if t.holds_weights and t.is_self_contained]
    )
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
        verdicts = Counter(same(name, *outputs.values()) for name in files)
    words = f"{len(files)} files: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    if verdicts["DIFFERENT"] or (verdicts["metadata"] and not metadata_may_differ):
        raise click.ClickException(words)
    click.echo(words)


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
        if not quant_types.get(name).needs_imatrix:
            jobs.append(convert(TINY, f"plain-{name}.gguf", name, threads))
        jobs.append([*convert(TINY, f"imatrix-{name}.gguf", name, threads), *imatrix])
        if quant_types.get(name).tcq:
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


def same(name: str, base: Path, here: Path) -> str:
    """ "same", "metadata" (every tensor is the same, byte for byte) or "DIFFERENT"; says so, with what differs."""
    paths = [base / name, here / name]
    hashes = [file_sha256(path) if path.is_file() else "absent" for path in paths]
    if hashes[0] == hashes[1]:
        verdict, what = "same", ""
    elif "absent" in hashes:
        verdict, what = "DIFFERENT", "written by one tree only"
    else:
        readers = [read_gguf(path) for path in paths]
        tensors = [{t.name: (t.tensor_type, bytes(t.data)) for t in reader.tensors} for reader in readers]
        fields = [{key: repr(field.contents()) for key, field in reader.fields.items()} for reader in readers]
        keys = differing(*fields)
        changed = differing(*tensors)
        verdict, what = ("DIFFERENT", ", ".join(changed[:5])) if changed else ("metadata", ", ".join(keys))
    click.echo(f"{verdict:<10}{hashes[1][:16]}  {name}  {what}")
    return verdict


def differing(base: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """The names whose values are not the same, or that only one of them has."""
    return [name for name in dict.fromkeys([*base, *here]) if base.get(name) != here.get(name)]


if __name__ == "__main__":
    main()
