"""Steps on an executor: run once, in order, with their outputs in a store; workers that are lost; files not seen."""

import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gguf_golf.errors import DataError, GolfError, InputError
from gguf_golf.steps import Executor, File, Needs, Step, open_executor
from gguf_golf.steps import executor as executor_module
from gguf_golf.steps.store import open_store
from tests.steps.inprocess import InProcess, Lost


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("some text, ")
    return path


@pytest.fixture
def upper(text: Path, tmp_path: Path) -> Callable[[int], Step]:
    """upper(n) repeats the text n times in capitals; tmp_path/log has a line for every run of any."""
    files = {"text": File.of(text)}
    return lambda n: Step(f"upper {n}", "tests.steps.toy:upper", files, {"times": n, "log": str(tmp_path / "log")})


def executor_of(tmp_path: Path, *, lose: int = 0) -> Executor:
    return Executor(InProcess(lose), open_store(tmp_path / "store"), 1)


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "log").read_text().splitlines())


def contents(executor: Executor, steps: list[Step]) -> list[bytes]:
    return [output.read_bytes() for _, output in executor.outputs(steps)]


def test_outputs_come_in_order_and_are_made_once(upper, tmp_path):
    steps = [upper(n) for n in (2, 1, 3)]
    first = contents(executor_of(tmp_path), steps)
    assert first == [b"SOME TEXT, " * n for n in (2, 1, 3)]
    assert contents(executor_of(tmp_path), steps) == first  # another driver, as after a crash
    assert runs(tmp_path) == 3


def test_what_is_forgotten_is_made_again(upper, tmp_path):
    executor = executor_of(tmp_path)
    contents(executor, [upper(1)])
    executor.forget([upper(1)])
    assert not list((tmp_path / "store").rglob("*.json")) and not list((tmp_path / "store" / "objects").iterdir())
    contents(executor, [upper(1)])
    assert runs(tmp_path) == 2


def test_two_steps_with_one_content_survive_that_one_is_forgotten(upper, text, tmp_path):
    executor, same = executor_of(tmp_path), replace(upper(1), parameters=dict(upper(1).parameters) | {"more": 1})
    seen = []
    for step, output in executor.outputs([upper(1), same]):
        seen.append(output.read_bytes())
        executor.forget([step])
    assert seen == [b"SOME TEXT, "] * 2


def test_the_key_knows_contents_and_parameters_and_nothing_else(upper, text, tmp_path):
    step, moved = upper(1), tmp_path / "moved.txt"
    moved.write_text(text.read_text())
    assert replace(step, inputs={"text": File.of(moved)}, name="another", needs=Needs(8)).key == step.key
    moved.write_text("other text")
    assert len({step.key, upper(2).key, replace(step, inputs={"text": File.of(moved)}).key}) == 3


def test_a_lost_worker_costs_its_step_alone(upper, tmp_path):
    assert contents(executor_of(tmp_path, lose=2), [upper(1), upper(2)]) == [b"SOME TEXT, ", b"SOME TEXT, " * 2]
    assert runs(tmp_path) == 2


def test_a_step_that_kills_every_worker_is_named(upper, tmp_path):
    with pytest.raises(GolfError, match="upper 1: its worker was lost 9 times"):
        contents(executor_of(tmp_path, lose=executor_module.ATTEMPTS + 1), [upper(1)])


def test_what_a_step_raises_reaches_the_caller_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="wrong data"):
        contents(executor_of(tmp_path), [Step("fail", "tests.steps.toy:failing", {}, {})])
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_worker_that_does_not_see_a_file_says_so(upper, text, tmp_path):
    step = upper(1)
    text.unlink()
    with pytest.raises(InputError, match=r"does not see .*text.txt.*--store URL"):
        contents(executor_of(tmp_path), [step])


def test_a_worker_of_another_version_says_so(upper, tmp_path):
    with pytest.raises(InputError, match="install the same version on every machine"):
        contents(executor_of(tmp_path), [replace(upper(1), code="0.0.9+abc")])


def test_a_url_keeps_inputs_and_outputs_for_those_who_do_not_see_them(upper, text, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(tmp_path / "cache"))
    url = f"memory://{tmp_path.name}"
    step, store = upper(2), open_store(url)
    store.publish(step.inputs["text"])
    text.rename(tmp_path / "unseen")
    assert contents(Executor(InProcess(0), store, 1), [step]) == [b"SOME TEXT, " * 2]
    assert store.find(step.key) is not None
    store.forget(step.key)
    assert store.find(step.key) is None
    (source,) = fsspec.filesystem("memory").find(f"/{tmp_path.name}/objects")
    fsspec.filesystem("memory").pipe_file(source, b"other bytes")
    for path in (tmp_path / "cache" / "fetched").rglob("objects/*"):
        path.unlink()
    with pytest.raises(DataError, match="holds other bytes"):
        contents(Executor(InProcess(0), open_store(url), 1), [upper(3)])


@pytest.mark.parametrize("spec", ["dask", "slurm://host", "joblib:many", "joblib:0", "ray:host", "Local"])
def test_an_unknown_executor_is_refused_with_all_that_are_known(spec, tmp_path):
    with pytest.raises(InputError, match=r"there is no executor .*known are local, joblib"):
        open_executor(spec, tmp_path)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("FILE", "cannot be written: .*FILE is not a folder"),
        ("nope://bucket", "the store nope://bucket: Protocol not known: nope; check the address"),
        ("local://FILE/store", "the store local://FILE/store: .*Not a directory.*; check the address"),
        ("memory://store", "every process has a memory of its own; give a folder, or another URL"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_at_once(store, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    with pytest.raises(InputError, match=message):
        open_executor("joblib:1", store)


def test_a_store_that_loses_its_rights_on_the_way_says_so(upper, tmp_path, monkeypatch):
    monkeypatch.setenv("GGUF_GOLF_CACHE", str(tmp_path / "cache"))
    store = open_store(f"memory://{tmp_path.name}")

    def denied(*_: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.pipe_file", denied)
    with pytest.raises(InputError, match=rf"the store memory://{tmp_path.name}: Access Denied; .*credentials"):
        contents(Executor(InProcess(0), store, 1), [upper(1)])


def test_a_store_without_fsspec_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match=r"pip install 'gguf-golf\[store\]'"):
        open_executor("joblib:1", "s3://bucket")


def test_an_output_that_only_its_worker_sees_is_not_asked_for_for_ever(upper, tmp_path):
    class Elsewhere(InProcess):
        """A machine with another folder under the store's path."""

        def submit(self, needs: Needs, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
            return super().submit(needs, function, arguments[0], str(tmp_path / "its own"))

    executor = Executor(Elsewhere(0), open_store(tmp_path / "store"), 1)
    with pytest.raises(GolfError, match=r"upper 1: .* has finished it, but its output is not in the store .*: give"):
        contents(executor, [upper(1)])
    assert runs(tmp_path) == 1


def test_local_is_no_executor(tmp_path):
    assert open_executor("local", tmp_path) is None


def test_lost_is_told_from_wrong(upper, tmp_path):
    """A pool's own exceptions are about workers, all others about the step."""

    class Confused(InProcess):
        def submit(self, needs: Needs, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            future.set_exception(RuntimeError("a bug"))
            return future

    assert Confused.lost == (Lost,)
    with pytest.raises(RuntimeError, match="a bug"):
        contents(Executor(Confused(0), open_store(tmp_path / "store"), 1), [upper(1)])
