"""A sweep on an executor against the plain local one: the same bytes? at what cost in CPU time? and in how long?

    python eval/experiments/executors.py run MODEL OUT local --cores 0-3
    python eval/experiments/executors.py run MODEL OUT dask --workers 4 --cores 4-7
    python eval/experiments/executors.py run MODEL OUT dask --workers 4 --kills 50 --cuts 10
    python eval/experiments/executors.py compare OUT
    python eval/experiments/executors.py overhead BASE.gguf OUT --rounds 3

`run` starts a scheduler and workers of one core each, sweeps, and adds a line to OUT/runs.jsonl: seconds, CPU seconds
of all processes, and the SHA-256 of each file. --kills kills random workers (SIGKILL; they start again). --cuts takes
the network from random ones for CUT_SECONDS; each is a host of its own then, a network namespace, which takes root and
`ip`. `compare` says whether all runs wrote the same files, and what they cost. A small sweep is --settings small.
`overhead` encodes a model in --type here, on joblib and on Dask in turn, with workers that start anew each time, and
says by how much their CPU time is larger.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from gguf_golf.fit import Settings, fit
from gguf_golf.formats import quant_types
from gguf_golf.plan.constraints import Constraints
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import Job
from gguf_golf.runtime import library
from gguf_golf.sensitivity import distortion
from gguf_golf.steps import executing, open_executor

SETTINGS = {
    "small": Settings(n_ctx=64, calibration_chunks=2, control_chunks=3, eval_chunks=3, threads=1),
    "medium": Settings(n_ctx=256, calibration_chunks=8, control_chunks=4, eval_chunks=8, threads=1),
    "short": Settings(n_ctx=256, calibration_chunks=8, control_chunks=4, eval_chunks=4, threads=1),
    "full": Settings(threads=1),
}
BUDGETS = {
    "small": ["2.0bpw", "2.6bpw"],
    "medium": ["2.25bpw", "2.75bpw", "3.25bpw", "3.75bpw", "4.25bpw", "5.0bpw"],
    "short": ["2.75bpw"],
    "full": ["2.25bpw", "2.75bpw", "3.25bpw", "3.75bpw", "4.25bpw", "5.0bpw"],
}
FEW_TYPES = ("tcq1", "tcq2", "tcq3", "tcq4", "q4_k", "q6_k")
"""What small and medium sweeps try, as trying all types is most of their work."""

CUT_SECONDS = 8
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "sweep"):
        command = commands.add_parser(name)
        command.add_argument("model", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("engine", help="local, dask, or an executor as the command line takes it")
        command.add_argument("--settings", choices=sorted(SETTINGS), default="medium")
        command.add_argument("--threads", type=int, default=1, help="of the driver")
        command.add_argument("--folder", type=Path)
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--port", type=int, default=18786, help="of the scheduler")
        command.add_argument("--cores", help="taskset's list for everything")
        command.add_argument("--kills", type=int, default=0)
        command.add_argument("--cuts", type=int, default=0)
        command.add_argument("--every", type=float, default=5, help="seconds between two faults")
    commands.add_parser("compare").add_argument("out", type=Path)
    for name in ("overhead", "encode"):
        command = commands.add_parser(name)
        command.add_argument("model", type=Path, help="a GGUF in full precision")
        command.add_argument("out", type=Path)
        command.add_argument("engine", nargs="?", help="as the command line takes it (encode)")
        command.add_argument("--type", default="tcq2")
        command.add_argument("--rounds", type=int, default=3)
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--port", type=int, default=18786, help="of the scheduler")
        command.add_argument("--cores", help="taskset's list for everything")
        command.set_defaults(cuts=0)
    given = parser.parse_args()
    commands_by_name = {"run": run, "sweep": sweep, "compare": compare, "overhead": overhead, "encode": encode}
    commands_by_name[given.command](given)


def sweep(given: argparse.Namespace) -> None:
    """The driver: a process of its own, so that its CPU time can be told."""
    if given.settings != "full":
        distortion.CANDIDATES = tuple(quant_types.get(name) for name in FEW_TYPES)
    outs = [given.folder / f"{budget}.gguf" for budget in BUDGETS[given.settings]]
    settings = replace(SETTINGS[given.settings], threads=given.threads)
    with open_executor(given.engine, given.folder / "store") or nullcontext() as executor, executing(executor):
        fit(given.model, BUDGETS[given.settings], outs, settings, Constraints(), lambda words: print(words, flush=True))


def run(given: argparse.Namespace) -> None:
    """Cluster, driver, faults, and a line of results."""
    name = given.engine if given.engine == "local" else f"{given.engine}-{given.workers}"
    folder = given.out / f"{name}{'-faults' if given.kills or given.cuts else ''}-{os.getpid()}"
    folder.mkdir(parents=True)
    cluster = Cluster(given, folder) if given.engine == "dask" else None
    address = given.engine if cluster is None else f"dask://{cluster.host}:{given.port}"
    if given.engine == "joblib":
        address = f"joblib:{given.workers}"
    arguments = ["sweep", str(given.model), str(given.out), address, "--settings", given.settings]
    arguments += ["--threads", str(given.threads), "--folder", str(folder)]
    environment = os.environ | ONE_THREAD | {"GGUF_GOLF_CACHE": str(folder / "cache")}
    environment["LLAMA_CPP_LIB_PATH"] = runtime()
    started = time.monotonic()
    driver = subprocess.Popen(
        [*pinned(given.cores), sys.executable, __file__, *arguments],
        env=environment,
        stdout=(folder / "driver.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    if cluster is not None and (given.kills or given.cuts):
        threading.Thread(target=cluster.suffer, args=(driver,), daemon=True).start()
    _, status, usage = os.wait4(driver.pid, 0)
    seconds, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    line = {
        "run": folder.name,
        "settings": given.settings,
        "workers": 0 if given.engine == "local" else given.workers,
        "threads": given.threads,
        "failed": status != 0,
        "seconds": round(seconds, 1),
        "driver_cpu": round(cpu, 1),
        "workers_cpu": 0.0 if cluster is None else round(cluster.stop(), 1),
        "kills": 0 if cluster is None else cluster.kills,
        "cuts": 0 if cluster is None else cluster.cuts,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.gguf"))},
    }
    with (given.out / "runs.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def overhead(given: argparse.Namespace) -> None:
    """A line for each encoding, and then the median cost of each engine."""
    given.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[float]] = {}
    hashes = set()
    for _ in range(given.rounds):
        for engine in ("local", f"joblib:{given.workers}", "dask"):
            cluster = Cluster(given, given.out) if engine == "dask" else None
            address = engine if cluster is None else f"dask://{cluster.host}:{given.port}"
            arguments = ["encode", str(given.model), str(given.out), address, "--type", given.type]
            driver = subprocess.Popen(
                [*pinned(given.cores), sys.executable, __file__, *arguments],
                env=os.environ | ONE_THREAD | {"LLAMA_CPP_LIB_PATH": runtime()},
                stderr=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(driver.pid, 0)
            assert status == 0, engine
            cpu = usage.ru_utime + usage.ru_stime + (0.0 if cluster is None else cluster.stop())
            found.setdefault(engine, []).append(cpu)
            hashes.add(hashlib.sha256((given.out / "encoded.gguf").read_bytes()).hexdigest())
            print(f"{engine}: {cpu:.2f} CPU seconds", flush=True)
    for engine, seconds in found.items():
        extra = [each / here - 1 for each, here in zip(seconds, found["local"], strict=True)]
        print(f"{engine}: median {statistics.median(seconds):.2f} CPU seconds, {statistics.median(extra):+.1%}")
    print(f"the files are {'' if len(hashes) == 1 else 'NOT '}the same")


def encode(given: argparse.Namespace) -> None:
    """The driver of `overhead`."""
    with open_executor(given.engine, given.out / "store") or nullcontext() as executor, executing(executor):
        convert(given.model, given.out / "encoded.gguf", type_name=given.type, job=Job(threads=1, force=True))


def runtime() -> str:
    """The libraries of this checkout, for processes with a cache of their own."""
    return str(library.folder())


def pinned(cores: str | None) -> list[str]:
    return [] if cores is None else ["taskset", "-c", cores]


class Cluster:
    """A Dask scheduler and workers of one core, each perhaps in a network namespace; they can be hurt."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder, self.kills, self.cuts, self.cpu = given, folder, 0, 0, 0.0
        self.apart = given.cuts > 0
        self.host = "10.99.0.1" if self.apart else "127.0.0.1"
        if self.apart:
            self.network()
        self.scheduler = self.start(
            ["distributed.cli.dask_scheduler", "--host", self.host, "--port", str(self.given.port), "--no-dashboard"]
        )
        self.workers = [self.worker(index) for index in range(given.workers)]

    def start(self, arguments: list[str], inside: list[str] | None = None) -> "subprocess.Popen[bytes]":
        environment = os.environ | ONE_THREAD | {"GGUF_GOLF_CACHE": str(self.folder / "cache")}
        environment["LLAMA_CPP_LIB_PATH"] = runtime()
        return subprocess.Popen(
            [*(inside or []), *pinned(self.given.cores), sys.executable, "-m", *arguments],
            env=environment,
            stdout=(self.folder / "cluster.log").open("a"),
            stderr=subprocess.STDOUT,
        )

    def worker(self, index: int) -> "subprocess.Popen[bytes]":
        inside = ["ip", "netns", "exec", f"golf{index}"] if self.apart else []
        local = ["--local-directory", str(self.folder / "dask")]
        return self.start(
            [
                "distributed.cli.dask_worker",
                f"tcp://{self.host}:{self.given.port}",
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                *local,
            ],
            inside,
        )

    def network(self) -> None:
        """A bridge, and a namespace for each worker on it."""
        ip("link", "add", "golfbr", "type", "bridge")
        ip("addr", "add", f"{self.host}/24", "dev", "golfbr")
        ip("link", "set", "golfbr", "up")
        for index in range(self.given.workers):
            ip("netns", "add", f"golf{index}")
            ip("link", "add", f"golfv{index}", "type", "veth", "peer", "name", "eth0", "netns", f"golf{index}")
            ip("link", "set", f"golfv{index}", "master", "golfbr", "up")
            ip("-n", f"golf{index}", "addr", "add", f"10.99.0.{10 + index}/24", "dev", "eth0")
            ip("-n", f"golf{index}", "link", "set", "eth0", "up")
            ip("-n", f"golf{index}", "link", "set", "lo", "up")

    def suffer(self, driver: "subprocess.Popen[bytes]") -> None:
        """One fault after another, while the driver runs; a worker that ended for whatever reason starts again."""
        faults = ["kill"] * self.given.kills + ["cut"] * self.given.cuts
        random.Random(1).shuffle(faults)
        while driver.returncode is None and faults:
            time.sleep(self.given.every)
            index = random.randrange(len(self.workers))
            if faults.pop() == "kill":
                self.workers[index].kill()
                self.workers[index].wait()
                self.kills += 1
            else:
                ip("link", "set", f"golfv{index}", "down")
                time.sleep(CUT_SECONDS)
                ip("link", "set", f"golfv{index}", "up")
                self.cuts += 1
            for each, process in enumerate(self.workers):
                if process.poll() is not None:
                    self.workers[each] = self.worker(each)

    def stop(self) -> float:
        """End everything; CPU seconds of what still ran."""
        for process in [*self.workers, self.scheduler]:
            if process.poll() is None:
                process.terminate()
                _, _, usage = os.wait4(process.pid, 0)
                self.cpu += usage.ru_utime + usage.ru_stime
        if self.apart:
            for index in range(self.given.workers):
                ip("netns", "del", f"golf{index}")
            ip("link", "del", "golfbr")
        return self.cpu


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def compare(given: argparse.Namespace) -> None:
    """One line for each run, and whether the files are the same."""
    runs = [json.loads(line) for line in (given.out / "runs.jsonl").read_text().splitlines()]
    print("| run | seconds | CPU seconds: driver | workers | kills | cuts |\n|---|---|---|---|---|---|")
    for each in runs:
        numbers = [each[key] for key in ("seconds", "driver_cpu", "workers_cpu", "kills", "cuts")]
        print(f"| {each['run'].rpartition('-')[0]} | {' | '.join(map(str, numbers))} |")
    same = len({json.dumps(each["files"]) for each in runs if not each["failed"]}) == 1
    failed = sum(each["failed"] for each in runs)
    print(f"{len(runs)} runs, {failed} failed; the files are {'' if same else 'NOT '}the same")


if __name__ == "__main__":
    main()
