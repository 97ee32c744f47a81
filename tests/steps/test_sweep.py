"""A sweep of the embedded model on executors: the bytes of the local run, also when workers are killed on the way."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gguf_golf.fit import Settings, fit
from gguf_golf.formats import quant_types
from gguf_golf.plan.constraints import Constraints
from gguf_golf.sensitivity import distortion
from gguf_golf.steps import Executor, executing, open_executor
from gguf_golf.steps.store import open_store
from tests.steps.inprocess import InProcess

SETTINGS = Settings(n_ctx=64, calibration_chunks=2, control_chunks=3, eval_chunks=3, threads=1)
BUDGETS = ["1.9MB", "2.6bpw"]
TYPES = ("tcq2", "tcq3", "q4_k", "q6_k")  # a few: every type is tried in tests/sensitivity


@pytest.fixture(scope="module", autouse=True)
def few_types() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distortion, "CANDIDATES", tuple(quant_types.get(name) for name in TYPES))
        yield


@pytest.fixture(scope="module")
def sweep(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """sweep(folder, executor) is the SHA-256 of each file; evaluations are cached beside them."""

    def run(folder: Path, executor: Executor | None = None) -> list[str]:
        outs = [folder / "bytes.gguf", folder / "bpw.gguf"]
        with pytest.MonkeyPatch.context() as patch, executing(executor):
            patch.setattr("gguf_golf.evaluate.evaluate.cache_dir", lambda: folder / "cache")
            fit(tiny_dir, BUDGETS, outs, SETTINGS, Constraints(), lambda words: None)
        return [hashlib.sha256(out.read_bytes()).hexdigest() for out in outs]

    return run


@pytest.fixture(scope="module")
def local(sweep: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return sweep(tmp_path_factory.mktemp("local"))


def test_in_process_the_bytes_are_those_of_the_local_run(sweep, local, tmp_path):
    executor = Executor(InProcess(lose=3), open_store(tmp_path / "store"), 1)
    assert sweep(tmp_path, executor) == local
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_on_dask_they_are_the_same_though_a_worker_is_killed(sweep, local, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address.replace("tcp", "dask")
        first = next(iter(cluster.workers.values())).pid

        def kill() -> None:
            while not list((tmp_path / "store" / "steps").glob("*.json")):
                time.sleep(0.02)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        with open_executor(address, tmp_path / "store") as executor:
            assert sweep(tmp_path, executor) == local
        killer.join()
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
