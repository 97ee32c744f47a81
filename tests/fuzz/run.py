"""Damaged inputs through every reader, in forked processes with limits: `make fuzz MINUTES=30`.

Prints a table of what the readers did and, for each kind of fault, the seed that shows it again:
`python -m tests.fuzz.run --target gguf --seed 123 --count 1`. The exit status is 1 if there was a fault.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from gguf_golf.errors import GolfError
from gguf_golf.runtime.session import GAVE_UP
from tests.fuzz import llama, mutate
from tests.fuzz.targets import TARGETS, Target

CPU_SECONDS = 10
"""Processor time after which an input counts as one that hangs its reader."""

MEMORY = 4 << 30
"""Address space that a reader of inputs of a few kilobytes may take beside what the process has already."""

BATCH = 500

LLAMA = Target("llama.cpp", "model.gguf", llama.make, llama.damage, llama.read)
ALL = [*TARGETS, LLAMA]


class Hang(BaseException):
    """Raised inside a reader that has used its time; no `except Exception` swallows it."""


@dataclass
class Tally:
    """What one reader did with its inputs. `faults` maps a kind of fault to (how often, the first seed)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, outcome: str, fault: str, seed: int) -> None:
        self.outcomes[outcome] += 1
        if fault:
            count, first = self.faults.get(fault, (0, seed))
            self.faults[fault] = (count + 1, first)


def outcome_of(target: Target, path: Path, victim: Path, valid: bytes, seed: int) -> tuple[str, str]:
    """Damage the victim by `seed` and read: ("accepted" | "refused" | "traceback" | "hang", kind of fault or "")."""
    victim.write_bytes(mutate.repeated(target.mutate)(valid, random.Random(f"{target.name} {seed}")))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            target.read(path)
        return "accepted", ""
    except GolfError as error:
        controls = [c for c in str(error) if unicodedata.category(c).startswith("C") and c not in "\n\t"]
        return ("traceback", f"the message holds {controls[0]!r}") if controls else ("refused", "")
    except Hang:
        return "hang", "no end within the time limit"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno} ({place.name})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextlib.contextmanager
def prepared(target: Target) -> Iterator[tuple[Path, Path, bytes]]:
    """A folder with the target's valid input: (path to read, path to damage, its valid bytes)."""
    signal.signal(signal.SIGPROF, _raise_hang)
    folder = Path(tempfile.mkdtemp(prefix="gguf-golf-fuzz-"))
    try:
        path = target.make(folder)
        victim = folder / target.victim
        target.read(path)  # the seed itself must be accepted
        yield path, victim, victim.read_bytes()
    finally:
        shutil.rmtree(folder)


def _raise_hang(*_: object) -> None:
    raise Hang


def _run_batch(target: Target, first: int, count: int, tally: Tally) -> None:
    """Run seeds first..first+count-1 in a forked process.

    One that dies is a crash of the seed it was at, unless it ended as it does where llama.cpp cannot go on.
    """
    while count > 0:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            _child(target, first, count, write_end)
        os.close(write_end)
        done = 0
        with os.fdopen(read_end) as lines:
            for line in lines:
                outcome, fault = json.loads(line)
                tally.add(outcome, fault, first + done)
                done += 1
        _, status = os.waitpid(child, 0)
        if done < count:
            end = os.waitstatus_to_exitcode(status)
            outcome, fault = ("refused", "") if end == GAVE_UP else ("crash", f"the process ended with {end}")
            tally.add(outcome, fault, first + done)
            done += 1
        first, count = first + done, count - done


def _child(target: Target, first: int, count: int, write_end: int) -> None:
    status = 1
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        with os.fdopen(write_end, "w") as out, prepared(target) as (path, victim, valid):
            for seed in range(first, first + count):
                out.write(json.dumps(outcome_of(target, path, victim, valid, seed)) + "\n")
                out.flush()
        status = 0
    finally:
        os._exit(status)


@click.command()
@click.option("--minutes", type=float, help="How long to run; all readers in turn.")
@click.option("--count", type=int, help="Inputs for each reader, in place of a time.")
@click.option("--seed", default=0, show_default=True, help="The first seed.")
@click.option("--target", "names", multiple=True, help="Only these readers.")
def main(minutes: float | None, count: int | None, seed: int, names: tuple[str, ...]) -> None:
    """Feed damaged inputs to every reader."""
    if (minutes is None) == (count is None):
        raise click.UsageError("give either --minutes or --count")
    targets = [target for target in ALL if not names or target.name in names]
    tallies = {target.name: Tally() for target in targets}
    end, first = time.monotonic() + 60 * (minutes or 0), seed
    while first - seed < count if count is not None else time.monotonic() < end:
        batch = BATCH if count is None else min(BATCH, count - (first - seed))
        for target in targets:
            _run_batch(target, first, batch, tallies[target.name])
        first += batch
    columns = ("accepted", "refused", "traceback", "hang", "crash")
    click.echo(f"{'reader':32}{'inputs':>10}" + "".join(f"{name:>11}" for name in columns))
    total: Counter[str] = Counter()
    for name, tally in tallies.items():
        total += tally.outcomes
        click.echo(f"{name:32}{tally.outcomes.total():10}" + "".join(f"{tally.outcomes[c]:11}" for c in columns))
    click.echo(f"{'all':32}{total.total():10}" + "".join(f"{total[c]:11}" for c in columns))
    faults = [(name, fault, *found) for name, tally in tallies.items() for fault, found in tally.faults.items()]
    for name, fault, times, first_seed in faults:
        click.echo(f"{name}: {fault}, {times} times; again with --target '{name}' --seed {first_seed} --count 1")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
