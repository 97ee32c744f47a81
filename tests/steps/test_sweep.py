"""A sweep of the embedded model on Dask: the bytes of the local run, though its driver and a worker are killed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gguf_golf.steps import open_executor
from tests.steps.sweeping import sweep


def killed_driver(*arguments: str) -> set[str]:
    """Start a sweep and kill it when five tensors are measured: their names."""
    done: set[str] = set()
    command = [sys.executable, "-m", "tests.steps.sweeping", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            done |= measured(line)
            if len(done) == 5:
                break
        driver.kill()
    return done


def measured(lines: str) -> set[str]:
    return {line.split()[2] for line in lines.splitlines() if line.startswith("[") and "] measure " in line}


def test_on_dask_they_are_the_same_though_the_driver_and_then_a_worker_are_killed(tiny_dir, tmp_path, capsys):
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    store, local = tmp_path / "store", tmp_path / "local"
    local.mkdir()
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address.replace("tcp", "dask")
        before = killed_driver(str(tiny_dir), str(tmp_path), address)
        first = next(iter(cluster.workers.values())).pid

        def kill_at_the_next_result() -> None:
            seen = set(store.rglob("*.json"))
            while not set(store.rglob("*.json")) - seen:
                time.sleep(0.02)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill_at_the_next_result, daemon=True)
        killer.start()
        capsys.readouterr()
        with open_executor(address, store) as executor:
            made = sweep(tiny_dir, tmp_path, executor)
        killer.join()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert made == sweep(tiny_dir, local)
    after = measured(capsys.readouterr().err)
    assert len(before) == 5 and after and not before & after  # what the first driver had is not made again
    left = list(store.glob("steps/*"))  # the one that the first driver was about to drop, and two that were under way
    assert len(left) <= 3 and len(list(store.glob("objects/*"))) == len(left)
