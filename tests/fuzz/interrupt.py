"""Commands killed, run in pairs and on full disks: what a user keeps, counted. `python -m tests.fuzz.interrupt --help`.

Every command runs in a forked process on a small model. After a kill an output must be absent, the old file or the new
one, never a torn one; the same command run again must succeed, with the bytes of an undisturbed run.
"""

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from gguf_golf import cli
from gguf_golf.calibrate import collect
from gguf_golf.runtime.cache import cache_dir
from tests.models.checkpoints import build

EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.link")
"""Operations on files, by the names of Python's audit events, before each of which a process may be killed."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILLED = -signal.SIGKILL
TEXT = "The cat sat on the mat, and the other cat sat there too. I've 12345 apples; we'll see. " * 60


@dataclass(frozen=True)
class Command:
    """A command line with {names} of files of the folder, and the outputs that it promises."""

    name: str
    arguments: str
    outputs: tuple[str, ...]
    other: str = ""
    """Arguments of another job with the same output, for the pairs."""


COMMANDS = (
    Command("convert", "convert model -o out.gguf --type tcq3", ("out.gguf",), "convert model -o out.gguf --type q8_0"),
    Command(
        "convert with feedback",
        "convert base.gguf -o out.gguf --type tcq2 --imatrix imatrix.gguf --hessian hessian.gguf",
        ("out.gguf",),
        "convert base.gguf -o out.gguf --type tcq4",
    ),
    Command(
        "imatrix",
        "imatrix base.gguf --text text.txt -o out.gguf --hessian out-hessian.gguf --ctx 64 --chunks 3 --threads 1",
        ("out.gguf", "out-hessian.gguf"),
        "imatrix base.gguf --text text.txt -o out.gguf --hessian out-hessian.gguf --ctx 64 --chunks 2 --threads 1",
    ),
    Command(
        "sensitivity",
        "sensitivity base.gguf --imatrix imatrix.gguf --text text.txt -o out.json --ctx 64 --chunks 2 --threads 1",
        ("out.json",),
        "sensitivity base.gguf --text text.txt -o out.json --ctx 64 --chunks 2 --threads 1",
    ),
    Command(
        "plan",
        "plan base.gguf --sensitivity sensitivity.json --budget 4bpw -o out.toml",
        ("out.toml",),
        "plan base.gguf --sensitivity sensitivity.json --budget 5bpw -o out.toml",
    ),
    Command(
        "quantize",
        "quantize base.gguf --recipe recipe.toml -o out.gguf",
        ("out.gguf",),
        "convert base.gguf -o out.gguf --type q8_0",
    ),
    Command(
        "eval",
        "eval base.gguf small.gguf --text text.txt --ctx 64 --chunks 4 --threads 1 --json out.json",
        ("out.json",),
        "eval base.gguf small.gguf --text text.txt --ctx 64 --chunks 3 --threads 1 --json out.json",
    ),
    Command("report", "report results.json -o out.html --csv out.csv", ("out.html", "out.csv")),
)

PREPARE = (
    "convert model -o base.gguf --type f32",
    "imatrix base.gguf --text text.txt -o imatrix.gguf --hessian hessian.gguf --ctx 64 --chunks 3 --threads 1",
    "convert base.gguf -o small.gguf --type tcq3 --imatrix imatrix.gguf",
    "sensitivity base.gguf --imatrix imatrix.gguf --text text.txt -o sensitivity.json --ctx 64 --chunks 2 --threads 1",
    "plan base.gguf --sensitivity sensitivity.json --budget 4bpw -o recipe.toml",
    "eval base.gguf small.gguf --text text.txt --ctx 64 --chunks 3 --threads 1 --json results.json",
)


class Workshop:
    """A folder with everything that the commands read; each trial starts from what lay in it then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cache = folder / "cache"
        cache.mkdir()
        for name in ("sdist", "source", "tree", "runtime"):  # built once; all else belongs to this folder
            (cache / name).symlink_to(cache_dir() / name)
        os.environ["GGUF_GOLF_CACHE"] = str(cache)
        os.chdir(folder)
        collect.KEEP_EVERY = 1  # so that kills meet sums that are kept
        build("llama3-scaled", folder).rename(folder / "model")
        (folder / "text.txt").write_text(TEXT, encoding="utf-8")
        for arguments in PREPARE:
            status, output = run(arguments)
            if status != 0:
                raise SystemExit(f"gguf-golf {arguments}: {output}")
        self.kept = {path.name for path in folder.iterdir()}

    def clean(self) -> None:
        """Remove what a trial left, hidden files and evaluation caches included."""
        for path in [*self.folder.iterdir(), self.folder / "cache" / "eval"]:
            if path.name not in self.kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def contents(self, command: Command) -> dict[str, str]:
        """SHA-256 of each of the outputs that exist."""
        return {
            name: hashlib.sha256(_comparable(self.folder / name)).hexdigest()
            for name in command.outputs
            if (self.folder / name).exists()
        }


def _comparable(path: Path) -> bytes:
    """A file's bytes; results without the command line that made them."""
    data = path.read_bytes()
    if path.suffix != ".json":
        return data
    document = json.loads(data)
    document.pop("command", None)
    return json.dumps(document).encode()


@dataclass(frozen=True)
class Process:
    """A forked process, and where its output can be read."""

    number: int
    output: int


def start(
    arguments: str, kill_before: int | None = None, count_to: Path | None = None, limit: int | None = None
) -> Process:
    """Fork a process that runs the command line.

    It is killed before its `kill_before`-th operation on files, or writes the number of all to `count_to`. Files cannot
    grow beyond `limit` bytes.
    """
    sys.stdout.flush()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        return Process(child, read_end)
    status = 1
    try:
        os.dup2(write_end, 1)
        os.dup2(write_end, 2)
        seen = 0

        def audit(event: str, args: tuple[object, ...]) -> None:
            nonlocal seen
            if event in EVENTS:
                if event == "open" and not (isinstance(args[2], int) and args[2] & WRITING):
                    return
                seen += 1
                if seen == kill_before:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        sys.argv = ["gguf-golf", *arguments.split()]
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if count_to is not None:
            seen_here = seen
            count_to.write_text(str(seen_here))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def finish(process: Process) -> tuple[int, str]:
    """Wait for a process: (exit status, or minus the signal; what it printed)."""
    with os.fdopen(process.output, errors="replace") as pipe:
        output = pipe.read()
    _, status = os.waitpid(process.number, 0)
    return os.waitstatus_to_exitcode(status), output


def run(arguments: str, **limits: int) -> tuple[int, str]:
    return finish(start(arguments, **limits))


@contextlib.contextmanager
def workshop() -> Iterator[Workshop]:
    folder, before = Path(tempfile.mkdtemp(prefix="gguf-golf-interrupt-")), Path.cwd()
    try:
        yield Workshop(folder)
    finally:
        os.chdir(before)
        shutil.rmtree(folder)


def reference(shop: Workshop, command: Command) -> tuple[dict[str, str], int, float]:
    """Undisturbed: the outputs' hashes, how many operations on files it takes, and how many seconds."""
    shop.clean()
    count, began = shop.folder / ".count", time.monotonic()
    status, output = finish(start(command.arguments, count_to=count))
    seconds = time.monotonic() - began
    if status != 0:
        raise SystemExit(f"{command.name}: {output}")
    return shop.contents(command), int(count.read_text()), seconds


def check_after(shop: Workshop, command: Command, wanted: dict[str, str], output: str) -> str:
    """What is wrong after a disturbed run, or nothing: torn outputs, a failing or different run afterwards."""
    torn = [name for name, digest in shop.contents(command).items() if digest != wanted[name]]
    if torn:
        return f"torn {', '.join(torn)}"
    if "Traceback" in output:
        return f"traceback: {output.strip().splitlines()[-1]}"
    status, again = run(command.arguments)
    if status != 0:
        return f"the next run fails: {again.strip().splitlines()[-1] if again.strip() else status}"
    return "" if shop.contents(command) == wanted else "the next run ends with other bytes"


def killed(shop: Workshop, command: Command, points: int, rng: random.Random) -> Iterator[str]:
    """Faults after kills: before every operation on files (or ones at even distances), and at random times."""
    wanted, operations, seconds = reference(shop, command)
    step = max(1.0, operations / max(1, points // 2))
    first = rng.random() * step
    chosen = [1 + int(first + i * step) for i in range(points // 2) if int(first + i * step) < operations]
    for point in chosen:
        shop.clean()
        status, output = run(command.arguments, kill_before=point)
        assert status == KILLED, f"{command.name} was to be killed at {point} of {operations}: {status} {output}"
        yield check_after(shop, command, wanted, output)
    for _ in range(points - len(chosen)):
        shop.clean()
        child = start(command.arguments)
        time.sleep(rng.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.number, signal.SIGKILL)
        _, output = finish(child)
        yield check_after(shop, command, wanted, output)


def pairs(shop: Workshop, command: Command, count: int, rng: random.Random) -> Iterator[str]:
    """Faults of two processes with one output: it must be that of a process that succeeded; a loser says why."""
    if not command.other:
        return
    wanted, _, seconds = reference(shop, command)
    other, _, _ = reference(shop, Command("", command.other, command.outputs))
    for number in range(count):
        shop.clean()
        first = start(command.arguments)
        time.sleep(rng.uniform(0, seconds) if number % 2 else 0)
        second = start(command.other)
        ends = [finish(first), finish(second)]
        found = shop.contents(command)
        winners = [hashes for hashes, (status, _) in zip((wanted, other), ends, strict=True) if status == 0]
        losers = [output for status, output in ends if status != 0]
        if found not in winners:
            yield f"a mixture of both, or none ({len(winners)} succeeded)"
        elif any("another process" not in output for output in losers):
            yield f"the refused one does not say why: {losers[0].strip().splitlines()[-1]}"
        else:
            yield ""


def full_disk(shop: Workshop, command: Command, count: int, rng: random.Random) -> Iterator[str]:
    """Faults when files cannot grow beyond a limit, from nothing to the size of the largest output."""
    wanted, _, _ = reference(shop, command)
    largest = max((shop.folder / name).stat().st_size for name in command.outputs)
    for number in range(count):
        shop.clean()
        status, output = run(command.arguments, limit=int(largest * (number + rng.random()) / count))
        yield check_full(shop, command, wanted, status, output)


def mounted(shop: Workshop, command: Command, count: int, rng: random.Random) -> Iterator[str]:
    """Faults on a small file system that is full, where a write into mapped memory ends a process; takes root."""
    disk = shop.folder / "disk"
    moved = Command(
        command.name,
        " ".join(f"disk/{word}" if word.startswith("out") else word for word in command.arguments.split()),
        tuple(f"disk/{name}" for name in command.outputs),
    )
    wanted, _, _ = reference(shop, moved)  # the folder is made as any output's folder is
    total = sum((shop.folder / name).stat().st_size for name in moved.outputs)
    for number in range(count):
        shop.clean()
        disk.mkdir()
        size = max(1, int(total * (number + rng.random()) / count) // 4096) * 4096
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
        try:
            status, output = run(moved.arguments)
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)  # somebody made room
            yield check_full(shop, moved, wanted, status, output)
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def check_full(shop: Workshop, command: Command, wanted: dict[str, str], status: int, output: str) -> str:
    """What is wrong after a run on a full disk that has room again, or nothing: it must say so in one line of error."""
    lines = [line for line in output.strip().splitlines() if line.startswith("error:")]
    if status < 0:
        return f"the process ended with signal {-status}"
    if status == 0 and shop.contents(command) != wanted:
        return "says success and has not written what was asked"
    if status != 0 and len(lines) != 1:
        return f"no line of error: {output.strip().splitlines()[-1] if output.strip() else status}"
    return check_after(shop, command, wanted, output)


TRIALS: dict[str, Callable[[Workshop, Command, int, random.Random], Iterator[str]]] = {
    "kills": killed,
    "pairs": pairs,
    "disks": full_disk,
    "mounts": mounted,
}


@click.command()
@click.option("--kills", default=0, help="Kill points of each command.")
@click.option("--pairs", default=0, help="Pairs of processes with one output, of each command.")
@click.option("--disks", default=0, help="Sizes at which a file can grow no further, of each command.")
@click.option("--mounts", default=0, help="Sizes of a full file system, of each command; takes root.")
@click.option("--seed", default=0, show_default=True)
@click.option("--command", "names", multiple=True, help="Only these commands.")
def main(seed: int, names: tuple[str, ...], **counts: int) -> None:
    """Disturb every command and count what is lost."""
    faults: Counter[tuple[str, str, str]] = Counter()
    with workshop() as shop:
        for trial, count in counts.items():
            for command in COMMANDS:
                if count and (not names or command.name in names):
                    found = list(TRIALS[trial](shop, command, count, random.Random(f"{seed} {trial} {command.name}")))
                    bad = [fault for fault in found if fault]
                    click.echo(f"{trial:6} {command.name:24} {len(found):5} trials {len(bad):5} faults")
                    faults.update((trial, command.name, fault) for fault in bad)
    for (trial, name, fault), times in faults.items():
        click.echo(f"{trial}, {name}: {fault} ({times} times)")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
