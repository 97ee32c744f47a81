"""The engines: each runs a step, says what a step found wrong in its own words, and survives a killed worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_golf.errors import DataError, InputError
from gguf_golf.steps import Needs, Step, open_executor


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


def test_workers_of_this_machine_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="needs the extra")
    program = (
        "import sys; from gguf_golf.steps import Step, open_executor\n"
        "with open_executor('joblib:1', sys.argv[1] + '/store') as executor:\n"
        "    list(executor.outputs([Step('endless', 'tests.steps.toy:endless', {}, {'log': sys.argv[1] + '/log'})]))\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text().endswith("\n"):
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.communicate(timeout=60)  # until every process that has this pipe is gone


@pytest.mark.parametrize("offered", [{}, {"GPU": 1, "MEMORY": 1000}])
def test_dask_is_told_what_a_step_needs_and_the_user_of_what_no_worker_has(offered, tmp_path, capsys):
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    given = {"processes": False, "protocol": "tcp://", "n_workers": 1, "dashboard_address": None}
    needs = [Needs(memory=900, gpu="GPU" in offered), Needs(memory=1100), Needs(memory=1200)]
    steps = [
        Step(f"step {n}", "tests.steps.toy:slow", {}, {"seconds": 0, "number": n}, need) for n, need in enumerate(needs)
    ]
    with (
        distributed.LocalCluster(**given, resources=offered) as cluster,
        open_executor(cluster.scheduler_address.replace("tcp", "dask"), tmp_path / "store") as executor,
    ):
        outputs = executor.outputs(steps)
        assert next(outputs)[1].read_bytes() == b"0"
        if not offered:
            assert [output.read_bytes() for _, output in outputs] == [b"1", b"2"]
    waits = "steps take 1,100 of MEMORY, the largest worker has 1,000: they wait for another\n"
    assert (waits in capsys.readouterr().err) == bool(offered)


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
    monkeypatch.setattr(ray, "nodes", list)
    open_executor("ray", tmp_path)
    assert connected == ["auto" if running else "local"]


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'gguf-golf\[dask\]'"):
        open_executor("dask://127.0.0.1:9", tmp_path)
