"""One rule for threads: None means every CPU that this process may use, by its affinity mask and its cgroup's quota."""

import os
from pathlib import Path

from gguf_golf.errors import InputError

_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def resolve(threads: int | None) -> int:
    """The number of threads to use: `threads`, or all available CPUs if it is None. Raises InputError below 1."""
    if threads is None:
        return available()
    if threads < 1:
        raise InputError(f"{threads} threads: give at least 1, or leave --threads out to use every available CPU")
    return threads


def available() -> int:
    """CPUs that this process may use, at least 1; hyper-threads count as CPUs."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cpus, _cgroup_quota())))


def limit_blas(threads: int) -> None:
    """Make the BLAS libraries of NumPy and SciPy use `threads` threads, in this process and its children.

    They read these variables when they are loaded, so this has to come before the first import of NumPy.
    """
    os.environ.update(dict.fromkeys(_BLAS_VARIABLES, str(threads)))


def _cgroup_quota(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs' worth of time that Linux grants this process's cgroup or a parent of it (v2 or v1), or infinity.

    More threads than that would be stopped for part of every period, while ggml's other threads spin and wait.
    """
    quota = float("inf")
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return quota
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers
        # inside a container the named folder may not exist, but its own limit is at the top
        own = top / name.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                quota = min(quota, _v1_quota(folder) if controllers else _v2_quota(folder))
    return quota


def _v2_quota(folder: Path) -> float:
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    return int(limit) / int(period) if limit.isdigit() else float("inf")


def _v1_quota(folder: Path) -> float:
    limit, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdigit() else float("inf")  # -1 is no limit


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
