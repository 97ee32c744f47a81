"""Run steps on a pool and hand their outputs back in order; what is in the store already is not run again.

The rooms ask `current()` for an executor; there is none unless `executing` set one, and then they do their work here.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from gguf_golf.errors import GolfError, InputError
from gguf_golf.progress import announce, note
from gguf_golf.steps.pools import Pool, open_pool
from gguf_golf.steps.step import Step
from gguf_golf.steps.store import Made, Store, open_store
from gguf_golf.steps.work import work

ATTEMPTS = 8
"""How often a step may lose its worker (beyond the engine's own attempts) before it is taken to be what kills them."""

AHEAD = 256
"""Steps that are with the engine beyond the one that is waited for: bounds its memory, and the store's."""


class Executor:
    """Runs steps on a pool, `cores` cores each. Use as a context manager: it closes the pool."""

    def __init__(self, pool: Pool, store: Store, cores: int) -> None:
        self._pool, self._store, self.cores = pool, store, cores
        self._published: set[str] = set()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def outputs(self, steps: Sequence[Step]) -> Iterator[tuple[Step, Path]]:
        """Each step with its output, a file to be read or mapped, in their order; `forget` them when they are used.

        Raises what a step raises, and GolfError for one whose workers are lost again and again.
        """
        clock, todo, running = _Clock(len(steps)), list(enumerate(steps)), dict[int, _Running]()
        for index, step in enumerate(steps):
            while todo and len(running) <= AHEAD:
                at, following = todo.pop(0)
                running[at] = self._begun(following)
            path = self._finished(running, index, clock)
            del running[index]
            yield step, path

    def forget(self, steps: Sequence[Step]) -> None:
        """Drop outputs that nobody will ask for again."""
        for step in steps:
            self._store.forget(step.key)

    def _begun(self, step: Step) -> "_Running":
        for file in step.inputs.values():
            if file.sha256 not in self._published:
                self._store.publish(file)
                self._published.add(file.sha256)
        each = _Running(step, self._store.find(step.key))
        self._submit(each)
        return each

    def _submit(self, each: "_Running") -> None:
        if each.made is None:
            each.future = self._pool.submit(each.step.needs, work, each.step, self._store.url)

    def _finished(self, running: "dict[int, _Running]", index: int, clock: "_Clock") -> Path:
        """The output of the step that is waited for; all steps that lost their workers meanwhile are sent again."""
        wanted = running[index]
        while True:
            if wanted.made is None:
                assert wanted.future is not None
                try:
                    wanted.made = wanted.future.result()
                    clock.ran(wanted.step, wanted.made)
                except self._pool.lost as error:
                    for each in [each for each in running.values() if self._is_lost(each)]:
                        self._again(each, error)
                    continue
            path = self._store.fetch(wanted.made.sha256)
            if path is not None:
                return path
            self._missing(wanted)

    def _is_lost(self, each: "_Running") -> bool:
        if each.made is not None or each.future is None or not each.future.done():
            return False
        return each.future.cancelled() or isinstance(each.future.exception(), self._pool.lost)

    def _again(self, each: "_Running", error: BaseException) -> None:
        each.attempts += 1
        if each.attempts > ATTEMPTS:
            raise GolfError(
                f"{each.step.name}: its worker was lost {each.attempts} times ({type(error).__name__}): see its log, "
                "most often it has too little memory; then run the same command again, finished steps are kept"
            ) from error
        note(f"{each.step.name}: its worker was lost; it runs again")
        self._submit(each)

    def _missing(self, each: "_Running") -> None:
        """Run a step again whose output went with another's; it may also lie where only its worker sees it."""
        assert each.made is not None
        each.attempts += 1
        if each.attempts > ATTEMPTS:
            raise GolfError(
                f"{each.step.name}: {each.made.host} has finished it, but its output is not in the store "
                f"{self._store.url}: give a --store that all machines see, a shared folder or a URL such as "
                "s3://bucket/prefix"
            )
        each.made = None
        self._submit(each)


class _Running:
    """A step that was handed out, or found done."""

    def __init__(self, step: Step, made: Made | None) -> None:
        self.step, self.made = step, made
        self.future: Future[Made] | None = None
        self.attempts = 0


class _Clock:
    """Says a line for every finished step, and when all may be done."""

    def __init__(self, total: int) -> None:
        self._total, self._ran, self._started = total, 0, time.monotonic()

    def ran(self, step: Step, made: Made) -> None:
        self._ran += 1
        left = (time.monotonic() - self._started) / self._ran * (self._total - self._ran)
        announce(
            f"[{self._ran}/{self._total}] {step.name}: {made.seconds:.1f} s on {made.host}, about {left:.0f} s left"
        )


def open_executor(spec: str, store: str | Path, cores: int = 1) -> Executor | None:
    """The executor that `--executor` names, with its outputs in a folder or at a URL; None for "local".

    Raises InputError as `open_pool` and `open_store` do, and for a store that no other process sees.
    """
    if spec == "local":
        return None
    if "memory://" in str(store):
        raise InputError(f"--store {store}: every process has a memory of its own; give a folder, or another URL")
    opened = open_store(store)  # before a pool that would have to be closed again
    return Executor(open_pool(spec, cores), opened, cores)


_current: ContextVar[Executor | None] = ContextVar("executor", default=None)


def current() -> Executor | None:
    """The executor of this block, if there is one."""
    return _current.get()


@contextmanager
def executing(executor: Executor | None) -> Iterator[None]:
    """Within the block, the rooms' work goes to `executor`; None changes nothing."""
    token = _current.set(executor or _current.get())
    try:
        yield
    finally:
        _current.reset(token)
