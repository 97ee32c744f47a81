"""How long a sweep takes on 1 to 1,000 workers, some lost, some slow: a discrete-event simulation, and its check.

    python eval/experiments/scale_simulation.py table
    python eval/experiments/scale_simulation.py check

`table` prints the tables of docs/scale.md. `check` runs steps that sleep on a real Dask cluster of this machine, with
and without a worker that is killed, and prints the simulation's seconds beside the clock's. Both take simpy.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import simpy
from distributed import LocalCluster

from gguf_golf.steps import Step, open_executor

FORWARD, ENCODE = 2 * 0.011e-9, 2 * 0.25e-6
"""Core seconds per multiplication of a forward pass, and per weight encoded: gguf_golf/fit.py, on two cores."""

SAMPLES, RUNS = 0.6, 1.2
"""Core seconds in which all types are tried on a tensor's sample, and chunks that a tensor's measurement takes."""

N_CTX, CALIBRATION, OBSERVED, CONTROL, EVALUATION = 512, 32, 4, 16, 40
FILES, BUDGETS, STEP_WEIGHTS, SPAN, BITS = 24, 6, 1 << 25, 1, 4.0
"""Candidates that six budgets measure in all, and how the work is cut (quantize/steps.py, evaluate/steps.py)."""

DISK, CORE_HOUR = 500e6, 0.045
"""Bytes a second that the driver writes, and dollars for an hour of a core: assumptions, not measurements."""

SIMULATED = 2000
"""Steps of a phase at most: of a larger model they are simulated as longer ones."""

DISPATCH = 0.004
"""Seconds of the driver for each step: sending it, and reading its record and output."""


@dataclass(frozen=True)
class Shape:
    """A model: weights, those that a token meets, linear tensors, tokens of the vocabulary, and the largest tensor."""

    name: str
    weights: float
    active: float
    tensors: int
    vocabulary: int
    largest: float

    @property
    def chunk(self) -> float:
        """Core seconds of a chunk's forward pass."""
        return FORWARD * self.active * N_CTX


SHAPES = (
    Shape("8B", 8.0e9, 8.0e9, 226, 128_256, 128_256 * 4096),
    Shape("70B", 70.6e9, 70.6e9, 562, 128_256, 128_256 * 8192),
    Shape("1T, 32B active", 1.03e12, 32e9, 550, 163_840, 384 * 2048 * 7168),
)


@dataclass(frozen=True)
class Phase:
    """Steps that may run side by side, core seconds each, after the driver's own seconds."""

    driver: float
    steps: list[float]


@dataclass(frozen=True)
class Faults:
    """Losses of a worker per hour, seconds until it is back; the share of steps that take `slow` times as long."""

    per_hour: float = 0.0
    back: float = 30.0
    stragglers: float = 0.0
    slow: float = 5.0
    planned: tuple[tuple[float, int], ...] = ()  # (second, worker), in place of random losses


def simulate(phases: Sequence[Phase], workers: int, faults: Faults, seed: int = 0) -> float:
    """Seconds until everything is done. A lost worker costs its step, which another one begins anew."""
    env, rng = simpy.Environment(), random.Random(seed)
    queue = simpy.Store(env)
    finished = simpy.Store(env)

    def worker(index: int) -> Iterator[simpy.Event]:
        planned = sorted(at for at, which in faults.planned if which == index)
        until = planned.pop(0) if planned else _next_loss(rng, faults)
        while True:
            work = yield queue.get()
            left = until - env.now
            if work <= left:
                yield env.timeout(work)
                yield finished.put(work)
                continue
            yield env.timeout(max(0.0, left))
            yield queue.put(work)
            yield env.timeout(faults.back)
            until = planned.pop(0) if planned else env.now + _next_loss(rng, faults)

    def driver() -> Iterator[simpy.Event]:
        for phase in phases:
            yield env.timeout(phase.driver)
            for work in phase.steps:
                yield env.timeout(DISPATCH)
                yield queue.put(work * (faults.slow if rng.random() < faults.stragglers else 1))
            for _ in phase.steps:
                yield finished.get()

    for index in range(workers):
        env.process(worker(index))
    env.run(env.process(driver()))
    return float(env.now)


def _next_loss(rng: random.Random, faults: Faults) -> float:
    return rng.expovariate(faults.per_hour / 3600) if faults.per_hour else float("inf")


def sweep(shape: Shape) -> list[Phase]:
    """The phases of a sweep of six budgets, as `gguf_golf.fit` runs them."""
    n_encode = min(SIMULATED, max(1, round(shape.weights / STEP_WEIGHTS)))
    encode = [ENCODE * shape.weights / n_encode] * n_encode
    write = shape.weights * BITS / 8 / DISK
    measure = 1.3 * ENCODE * shape.weights / shape.tensors + SAMPLES + RUNS * shape.chunk
    scores = [SPAN * shape.chunk]
    return [
        Phase(4 * shape.weights / DISK + CALIBRATION * shape.chunk / 2, [measure] * shape.tensors),
        *[phase for _ in range(FILES) for phase in (Phase(0, encode), Phase(write, scores * (CONTROL // SPAN)))],
        *[Phase(0, scores * (EVALUATION // SPAN))] * (BUDGETS + 2),
    ]


def table() -> None:
    """What the steps take, and how long a sweep is."""
    print("| model | step | core-hours | dollars | bytes moved | memory of a worker's own |\n|---|---|---|---|---|---|")
    for shape in SHAPES:
        file, base = shape.weights * BITS / 8, (N_CTX // 2 - 1) * 2 * shape.vocabulary
        rows = (
            ("calibrate", CALIBRATION * shape.chunk, 2 * shape.weights, 1e9),
            (
                "sensitivity",
                1.3 * ENCODE * shape.weights + shape.tensors * (SAMPLES + RUNS * shape.chunk),
                2 * shape.weights,
                1e9 + 2 * shape.largest,
            ),
            ("quantize, a file", ENCODE * shape.weights, 2 * shape.weights + 3 * file, 1e9),
            ("evaluate, a file", EVALUATION * shape.chunk, file + EVALUATION * base, file),
            ("sweep of six", sum(sum(phase.steps) for phase in sweep(shape)) + CALIBRATION * shape.chunk, None, None),
        )
        for name, seconds, moved, memory in rows:
            hours = seconds / 3600
            sizes = [" " if size is None else f"{size / 1e9:,.0f} GB" for size in (moved, memory)]
            print(f"| {shape.name} | {name} | {hours:,.1f} | {hours * CORE_HOUR:,.2f} | {sizes[0]} | {sizes[1]} |")
    print("\n| model | workers | hours | with loss | with stragglers | efficiency |\n|---|---|---|---|---|---|")
    for shape in SHAPES:
        phases = sweep(shape)
        alone = simulate(phases, 1, Faults())
        for workers in (1, 10, 100, 1000):
            plain, loss, slow = (
                simulate(phases, workers, faults) / 3600
                for faults in (Faults(), Faults(per_hour=0.1), Faults(stragglers=0.01))
            )
            efficiency = alone / 3600 / plain / workers
            print(f"| {shape.name} | {workers:,} | {plain:,.1f} | {loss:,.1f} | {slow:,.1f} | {efficiency:.0%} |")


def check() -> None:
    """Steps that sleep, on real workers."""
    rng = random.Random(1)
    steps = [round(rng.lognormvariate(-0.5, 0.5), 2) for _ in range(60)]
    print(f"60 steps, {sum(steps):.1f} s in all\n| workers | killed at | simulated | clock |\n|---|---|---|---|")
    for workers, killed in ((1, None), (2, None), (4, None), (4, 3.0)):
        back = 3.0  # a nanny's new worker
        faults = Faults(back=back, planned=() if killed is None else ((killed, 0),))
        expected = simulate([Phase(0, steps)], workers, faults)
        print(f"| {workers} | {killed or ''} | {expected:.1f} s | {_real(steps, workers, killed):.1f} s |", flush=True)


def _real(steps: Sequence[float], workers: int, killed: float | None) -> float:
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        tempfile.TemporaryDirectory() as store,
        open_executor(cluster.scheduler_address.replace("tcp", "dask"), store) as executor,
    ):
        warm = [Step(f"warm {i}", "tests.steps.toy:slow", {}, {"seconds": 1, "number": -i}) for i in range(workers)]
        for _ in executor.outputs(warm):
            pass
        if killed is not None:
            victim = next(iter(cluster.workers.values())).pid
            threading.Timer(killed, os.kill, (victim, signal.SIGKILL)).start()
        parameters = [{"seconds": seconds, "number": number} for number, seconds in enumerate(steps)]
        todo = [Step(f"step {each['number']}", "tests.steps.toy:slow", {}, each) for each in parameters]
        started = time.monotonic()
        for _step, output in executor.outputs(todo):
            assert Path(output).is_file()
        return time.monotonic() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("table", "check"))
    {"table": table, "check": check}[parser.parse_args().what]()
