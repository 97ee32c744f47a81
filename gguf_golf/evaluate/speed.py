"""Tokens per second and memory of models, measured fairly, and the size of a file after zstd.

Every measurement runs in a process of its own, so that memory is that model's alone; runs go round the models, so that
a machine that slows down slows all of them. Medians are reported, with all runs beside them.
"""

import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from gguf_golf.errors import GolfError, InputError
from gguf_golf.files import write_text
from gguf_golf.journal import open_journal
from gguf_golf.models.hashing import file_sha256
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import LoadedModel

ZSTD_LEVEL = 19
ZSTD_THREADS = 2  # fixed: the number of threads must not change the size
BLOCK = 1 << 22


@dataclass(frozen=True)
class SpeedSettings:
    """Tokens of the prompt and of the answer, runs of each model, threads."""

    n_prompt: int = 512
    n_generate: int = 64
    repeats: int = 5
    threads: int = 2

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "cpu": cpu_name()}


@dataclass(frozen=True)
class Speed:
    """Tokens per second (medians, and all runs), most resident bytes of the process, seconds to load."""

    prompt_tps: float
    generate_tps: float
    prompt_tps_runs: list[float]
    generate_tps_runs: list[float]
    resident_bytes: int
    load_seconds: float


def measure_speed(models: Sequence[Path], settings: SpeedSettings, journal_path: Path) -> list[Speed]:
    """Speed of each model. The journal has finished runs; they are not repeated."""
    keys = [file_sha256(model) for model in models]
    jobs = [(repeat, number) for repeat in range(settings.repeats) for number in range(len(models))]
    with open_journal(journal_path, {**settings.to_json(), "models": keys}, wait=True) as journal:
        done = {(run["repeat"], run["sha256"]) for run in journal.records}
        todo = [(repeat, number) for repeat, number in jobs if (repeat, keys[number]) not in done]
        for repeat, number in ProgressBar(todo, desc="speed", unit="run"):
            journal.add({**_run(models[number], settings), "repeat": repeat, "sha256": keys[number]})
        runs = journal.records
    return [_median([run for run in runs if run["sha256"] == key][: settings.repeats]) for key in keys]


def zstd_bytes(path: Path, cached: Path) -> int:
    """Bytes of a file after zstd -19; the file `cached` remembers the number."""
    if cached.exists() and (known := cached.read_bytes()).isdigit():
        return int(known)
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=ZSTD_THREADS).compressobj()
    total, size = 0, path.stat().st_size
    with path.open("rb") as file, ProgressBar(total=size, desc=f"zstd {path.name}", unit="B", unit_scale=True) as bar:
        while block := file.read(BLOCK):
            total += len(compressor.compress(block))
            bar.update(len(block))
    total += len(compressor.flush())
    write_text(cached, str(total))
    return total


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return match[1].strip() if match else platform.processor() or platform.machine()


def peak_resident_bytes() -> int:
    """Peak resident memory of this process, excluding its parent's."""
    status = Path("/proc/self/status")
    match = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE) if status.is_file() else None
    if match:  # Linux counts the parent's peak in ru_maxrss
        return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _median(runs: Sequence[dict[str, Any]]) -> Speed:
    prompt = [run["prompt_tps"] for run in runs]
    generate = [run["generate_tps"] for run in runs]
    return Speed(
        statistics.median(prompt),
        statistics.median(generate),
        prompt,
        generate,
        int(statistics.median(run["resident_bytes"] for run in runs)),
        statistics.median(run["load_seconds"] for run in runs),
    )


def _run(model: Path, settings: SpeedSettings) -> dict[str, Any]:
    numbers = (settings.n_prompt, settings.n_generate, settings.threads)
    command = [sys.executable, "-m", __name__, str(model), *map(str, numbers)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{model}: its speed could not be measured ({reason})")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _measure_here(path: Path, n_prompt: int, n_generate: int, threads: int) -> dict[str, Any]:
    """One run in this process: load, warm up, read a prompt, generate."""
    start = time.perf_counter()
    with LoadedModel(path) as model:
        loaded = time.perf_counter()
        tokens = np.random.default_rng(1).integers(0, model.n_vocab, n_prompt + n_generate).astype(np.int32)
        n_ctx = n_prompt + n_generate
        with model.context(n_ctx, n_batch=min(n_prompt, 512), threads=threads) as context:

            def feed(first: int, last: int) -> float:
                begun = time.perf_counter()
                for at in range(first, last, context.n_batch):
                    positions = np.arange(at, min(at + context.n_batch, last), dtype=np.int32)
                    context.decode(tokens[positions], positions, positions == last - 1)
                return time.perf_counter() - begun

            feed(0, min(32, n_prompt))  # the first batch also reads the weights from disk
            context.clear()
            prompt = feed(0, n_prompt)
            generate = sum(feed(at, at + 1) for at in range(n_prompt, n_ctx))
    return {
        "prompt_tps": n_prompt / prompt,
        "generate_tps": n_generate / generate,
        "resident_bytes": peak_resident_bytes(),
        "load_seconds": loaded - start,
    }


if __name__ == "__main__":
    try:
        print(json.dumps(_measure_here(Path(sys.argv[1]), *map(int, sys.argv[2:5]))))
    except GolfError as error:
        sys.exit(str(error))
