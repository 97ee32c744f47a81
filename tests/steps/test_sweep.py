"""A sweep of the embedded model on Dask: the bytes of the local run, also when a worker is killed on the way."""

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

SETTINGS = Settings(n_ctx=64, calibration_chunks=2, control_chunks=2, eval_chunks=3, threads=1)
TYPES = ("tcq2", "tcq3", "q4_k")  # a few: every type is tried in tests/sensitivity


@pytest.fixture(scope="module", autouse=True)
def few_types() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distortion, "CANDIDATES", tuple(quant_types.get(name) for name in TYPES))
        yield


@pytest.fixture(scope="module")
def sweep(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """sweep(folder, executor) is the file's SHA-256; evaluations are cached beside it."""

    def run(folder: Path, executor: Executor | None = None) -> str:
        out = folder / "out.gguf"
        with pytest.MonkeyPatch.context() as patch, executing(executor):
            patch.setattr("gguf_golf.evaluate.evaluate.cache_dir", lambda: folder / "cache")
            fit(tiny_dir, ["2.6bpw"], [out], SETTINGS, Constraints(), lambda words: None)
        return hashlib.sha256(out.read_bytes()).hexdigest()

    return run


@pytest.fixture(scope="module")
def local(sweep: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return sweep(tmp_path_factory.mktemp("local"))


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
        assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
