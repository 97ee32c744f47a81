"""The engines: each runs a step, says what a step found wrong in its own words, and survives a killed worker."""

import os
import signal
from collections.abc import Iterator

import pytest

from gguf_golf.errors import DataError, InputError
from gguf_golf.steps import Step, open_executor


@pytest.fixture(params=["joblib:1", "dask", "ray"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """What --executor takes, for an engine of one worker."""
    pytest.importorskip(request.param.partition(":")[0], reason="needs the extra")
    if request.param != "dask":
        yield request.param
        return
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address.replace("tcp", "dask")


def test_an_engine_runs_steps_and_hands_errors_on_and_replaces_a_killed_worker(address, tmp_path):
    with open_executor(address, tmp_path / "store") as executor:
        whose, number = Step("pid", "tests.steps.toy:pid", {}, {}), {"seconds": 0, "number": 7}
        ((_, output),) = executor.outputs([whose])
        os.kill(int(output.read_bytes()), signal.SIGKILL)
        ((_, output),) = executor.outputs([Step("seven", "tests.steps.toy:slow", {}, number)])
        assert output.read_bytes() == b"7"
        with pytest.raises(DataError, match=r"^wrong data$"):
            list(executor.outputs([Step("fail", "tests.steps.toy:failing", {}, {})]))


def test_an_address_without_an_answer_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs the dask extra")
    monkeypatch.setattr("gguf_golf.steps.pools.CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        open_executor("dask://127.0.0.1:9", tmp_path)
