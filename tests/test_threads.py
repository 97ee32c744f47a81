"""One rule for threads: the CPUs this process may use, and no number below 1."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gguf_golf import threads
from gguf_golf.errors import InputError


def test_none_is_every_cpu_of_the_affinity_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: float("inf"))
    assert threads.resolve(None) == 3


def test_a_number_is_taken_as_it_is() -> None:
    assert threads.resolve(7) == 7


@pytest.mark.parametrize("n", [0, -3])
def test_a_number_below_one_is_an_error_that_names_the_option(n: int) -> None:
    with pytest.raises(InputError, match=rf"{n} threads.*--threads"):
        threads.resolve(n)


@pytest.mark.parametrize(("quota", "cpus"), [(0.5, 1), (2.9, 2), (64.0, 8)])
def test_a_quota_of_the_cgroup_counts_in_whole_cpus(quota: float, cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: quota)
    assert threads.resolve(None) == cpus


def test_the_quota_is_the_least_of_the_cgroup_and_its_parents(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "a/b").mkdir(parents=True)
    proc.write_text("0::/a/b\n")
    assert threads._cgroup_quota(proc, root) == float("inf")
    (root / "a/b/cpu.max").write_text("max 100000\n")
    assert threads._cgroup_quota(proc, root) == float("inf")
    (root / "a/b/cpu.max").write_text("400000 100000\n")
    (root / "a/cpu.max").write_text("150000 100000\n")
    assert threads._cgroup_quota(proc, root) == 1.5


def test_a_container_whose_cgroup_has_another_name_inside_reads_the_top(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    root.mkdir()
    proc.write_text("0::/docker/0123\n")
    (root / "cpu.max").write_text("200000 100000\n")
    assert threads._cgroup_quota(proc, root) == 2


def test_version_one_of_cgroups_is_read_too(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    folder = root / "cpu,cpuacct" / "job"
    folder.mkdir(parents=True)
    proc.write_text("5:memory:/job\n4:cpu,cpuacct:/job\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads._cgroup_quota(proc, root) == float("inf")
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    assert threads._cgroup_quota(proc, root) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_the_limit_holds_for_the_blas_of_numpy_and_scipy() -> None:
    program = (
        "import os; from gguf_golf import threads; threads.limit_blas({n})\n"
        "import numpy as np, scipy.linalg\n"
        "scipy.linalg.cholesky(np.eye(600) @ np.eye(600)); print(len(os.listdir('/proc/self/task')))"
    )
    tasks = [int(subprocess.check_output([sys.executable, "-c", program.format(n=n)])) for n in (1, 3)]
    assert tasks[0] == 1 < tasks[1]


def test_nothing_else_counts_cpus() -> None:
    package = Path(threads.__file__).parent
    counting = [p for p in package.rglob("*.py") if re.search(r"cpu_count|getaffinity", p.read_text(encoding="utf-8"))]
    assert [path.name for path in counting] == ["threads.py"]
