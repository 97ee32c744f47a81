"""The engines that run steps: joblib's loky, Dask, Ray. Each is a few lines: submit, and how a lost worker looks."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from gguf_golf.errors import InputError
from gguf_golf.progress import note
from gguf_golf.steps.step import Needs
from gguf_golf.steps.work import end_with
from gguf_golf.threads import available

Function = Callable[..., Any]
Lost = tuple[type[BaseException], ...]

KNOWN = "local, joblib, joblib:WORKERS, dask://host:8786, ray, ray://host:10001"

CONNECT_SECONDS = 30


class Pool(Protocol):
    """Workers that call functions. `lost` are the exceptions of a call whose worker or whose connection was lost."""

    lost: Lost

    def submit(self, needs: Needs, function: Function, *arguments: Any) -> "Future[Any]":
        """Have a worker call an importable function of picklable arguments."""
        ...

    def close(self) -> None:
        """Let go of the workers."""
        ...


def open_pool(spec: str, cores: int) -> Pool:
    """The pool that `--executor` names; each call is to take `cores` cores.

    Raises InputError for a name that is not known, an extra that is not installed, or an address without an answer.
    """
    scheme, _, rest = spec.partition(":")
    try:
        if scheme == "joblib" and (not rest or (rest.isdecimal() and int(rest))):
            return JoblibPool(int(rest) if rest else max(1, available() // cores), cores)
        if scheme == "dask" and rest.startswith("//"):
            return DaskPool(f"tcp:{rest}")
        if scheme == "ray" and (not rest or rest.startswith("//")):
            return RayPool(spec if rest else None)
    except ImportError:
        raise InputError(f"--executor {spec} takes an extra: pip install 'gguf-golf[{scheme}]'") from None
    raise InputError(f"there is no executor {spec!r}; known are {KNOWN}")


class JoblibPool:
    """Processes of this machine, by joblib's loky. When one is killed, loky ends the others too: they start again."""

    def __init__(self, workers: int, cores: int) -> None:
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError

        self.lost: Lost = (BrokenProcessPool, ShutdownExecutorError)
        # a worker that waits for its next step keeps its model; and its BLAS takes no more than its cores
        blas = {name: str(cores) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        options = {"timeout": 3600, "env": blas, "initializer": end_with, "initargs": (os.getpid(),)}
        self._workers: Callable[[], Any] = lambda: get_reusable_executor(workers, **options)

    def submit(self, needs: Needs, function: Function, *arguments: Any) -> "Future[Any]":
        """See `Pool.submit`."""
        future: Future[Any] = self._workers().submit(function, *arguments)
        return future

    def close(self) -> None:
        """See `Pool.close`."""
        self._workers().shutdown(wait=True, kill_workers=True)


class DaskPool:
    """A Dask cluster, by the address of its scheduler. Start workers with --nthreads 1: a step is a process's whole."""

    def __init__(self, address: str) -> None:
        from concurrent.futures import CancelledError

        from distributed import Client
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        self.lost: Lost = (KilledWorker, CommClosedError, CancelledError)
        try:
            self._client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:  # ValueError: no port, or one that is no number
            raise InputError(
                f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, or give its "
                "address as dask://HOST:PORT"
            ) from None
        self._executor = self._client.get_executor(pure=False)
        workers = self._client.sync(self._client.scheduler.identity)["workers"].values()
        self._offers = _Offers([worker["resources"] for worker in workers])

    def submit(self, needs: Needs, function: Function, *arguments: Any) -> "Future[Any]":
        """See `Pool.submit`. Workers offer GPUs, and bytes of memory if they like, as Dask's resources GPU and MEMORY.

        Needs in memory count only where some worker offered it when the pool was opened, as Dask has none by default.
        """
        wanted = ({"GPU": 1} if needs.gpu else {}) | ({"MEMORY": needs.memory} if "MEMORY" in self._offers else {})
        self._offers.check(wanted)
        options = {"resources": wanted} if wanted else {}
        future: Future[Any] = self._executor.submit(function, *arguments, **options)
        return future

    def close(self) -> None:
        """See `Pool.close`."""
        self._client.close()


class RayPool:
    """A Ray cluster, by its client address; without one, the cluster of this machine, which is started if need be."""

    def __init__(self, address: str | None) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # steps without a GPU may still see it
        import ray

        self.lost: Lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ConnectionError)
        self._ray = ray
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        try:
            self._connect(address, quiet)
        except (ConnectionError, ValueError) as error:  # ValueError: an address without a port
            raise InputError(
                f"no Ray cluster answers at {address or os.environ.get('RAY_ADDRESS')} ({error}): give its address as "
                "ray://HOST:10001, or `ray` for one on this machine"
            ) from None
        self._offers = _Offers([node["Resources"] for node in ray.nodes() if node["Alive"]])

    def _connect(self, address: str | None, quiet: dict[str, Any]) -> None:
        if address is not None or os.environ.get("RAY_ADDRESS"):
            self._ray.init(address, **quiet)
            return
        try:
            self._ray.init("auto", **quiet)
        except ConnectionError:  # none runs here
            self._ray.init("local", num_cpus=available(), **quiet)

    def submit(self, needs: Needs, function: Function, *arguments: Any) -> "Future[Any]":
        """See `Pool.submit`."""
        self._offers.check({"CPU": needs.cores, "GPU": int(needs.gpu), "memory": needs.memory})
        wanted = {"num_cpus": needs.cores, "num_gpus": int(needs.gpu), "memory": needs.memory or None}
        remote = self._ray.remote(**wanted, max_retries=3)(function)
        future: Future[Any] = Future()
        remote.remote(*arguments).future().add_done_callback(lambda done: _settle(future, done))
        return future

    def close(self) -> None:
        """See `Pool.close`."""
        self._ray.shutdown()


def _settle(future: "Future[Any]", done: "Future[Any]") -> None:
    """Take over an outcome of Ray's, which wraps what a call raised."""
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(getattr(error, "cause", None) or error)


class _Offers:
    """The most that one worker offered of each resource, when the pool was opened."""

    def __init__(self, workers: list[dict[str, float]]) -> None:
        self._most: dict[str, float] = {}
        for worker in workers:
            self._most |= {name: max(amount, self._most.get(name, 0)) for name, amount in worker.items()}
        self._said: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._most

    def check(self, wanted: dict[str, int]) -> None:
        """Say, once for each resource, that steps wait for a worker which has not come yet: engines are silent."""
        for name, amount in wanted.items():
            most = self._most.get(name, 0)
            if amount > most and name not in self._said:
                self._said.add(name)
                note(f"steps take {amount:,} of {name}, the largest worker has {most:,.0f}: they wait for another")
