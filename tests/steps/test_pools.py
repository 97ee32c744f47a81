"""The engines: each runs a step, says what a step found wrong in its own words, and survives a killed worker."""

import os
import signal
import sys
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


@pytest.mark.parametrize("address", ["//127.0.0.1:9", "//127.0.0.1:port", "//"])
def test_an_address_without_an_answer_is_named(address, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs the dask extra")
    monkeypatch.setattr("gguf_golf.steps.pools.CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match=f"no Dask scheduler answers at tcp:{address} .*dask://HOST:PORT"):
        open_executor(f"dask:{address}", tmp_path)


@pytest.mark.parametrize("running", [True, False])
def test_a_ray_cluster_is_started_only_where_none_runs(running, tmp_path, monkeypatch):
    """Ray refuses a number of cores for one that runs already."""
    ray = pytest.importorskip("ray", reason="needs the ray extra")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    connected = []

    def init(address, *, num_cpus=None, **_):
        if address == "auto" and not running:
            raise ConnectionError("none")
        if running and num_cpus is not None:
            raise ValueError("num_cpus must not be provided")
        connected.append(address)

    monkeypatch.setattr(ray, "init", init)
    open_executor("ray", tmp_path)
    assert connected == ["auto" if running else "local"]


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'gguf-golf\[dask\]'"):
        open_executor("dask://127.0.0.1:9", tmp_path)
