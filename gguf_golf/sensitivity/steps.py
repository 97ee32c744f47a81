"""The same measurements here or on an executor: there, a step is a tensor, and the search for super weights one more.

A worker keeps the model and what its undisturbed run showed from one step to the next.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from gguf_golf.models import LazyTensor
from gguf_golf.sensitivity import result
from gguf_golf.sensitivity.measuring import Measuring, Question
from gguf_golf.sensitivity.result import SuperWeight, TensorSensitivity
from gguf_golf.steps import Executor, File, Needs, Step, Task, current, resident

OWN_BYTES = 1 << 30
"""What a worker takes beside the tensor that it exchanges, for which four bytes a weight are enough. The model itself
is mapped (probe.py)."""


class Answers(Protocol):
    """What a question's measurements are asked for with."""

    def tensors(self, tensors: Sequence[LazyTensor]) -> Iterator[TensorSensitivity]:
        """The entry of each tensor, in their order."""
        ...

    def super_weights(self, tensors: list[TensorSensitivity]) -> tuple[list[SuperWeight], int]:
        """The super weights, given all entries, and how many chunks the text had."""
        ...


@contextmanager
def answering(question: Question, out: Path, threads: int | None) -> Iterator[Answers]:
    """By the executor of this block, or else by this process, with its scratch files beside `out`."""
    executor = current()
    if executor is not None:
        yield _Elsewhere(executor, question)
        return
    with question.measuring(out, threads) as measuring:
        yield _Here(measuring)


class _Here:
    def __init__(self, measuring: Measuring) -> None:
        self._measuring = measuring

    def tensors(self, tensors: Sequence[LazyTensor]) -> Iterator[TensorSensitivity]:
        return map(self._measuring.measure_tensor, tensors)

    def super_weights(self, tensors: list[TensorSensitivity]) -> tuple[list[SuperWeight], int]:
        return self._measuring.super_weights(tensors), self._measuring.n_chunks


class _Elsewhere:
    def __init__(self, executor: Executor, question: Question) -> None:
        self._executor = executor
        paths = {"model": question.model, "text": question.text, "imatrix": question.imatrix}
        paths["hessian"] = question.hessian
        self._files = {name: File.of(path) for name, path in paths.items() if path is not None}
        self._numbers = {"n_ctx": question.n_ctx, "n_chunks": question.n_chunks, "types": list(question.types)}

    def tensors(self, tensors: Sequence[LazyTensor]) -> Iterator[TensorSensitivity]:
        steps = [
            self._step(f"measure {tensor.name}", "tensor", math.prod(tensor.shape), tensor=tensor.name)
            for tensor in tensors
        ]
        for step, output in self._executor.outputs(steps):
            yield result.tensor_from_json(json.loads(output.read_bytes()))
            self._executor.forget([step])  # the next is asked for when this one is in the journal

    def super_weights(self, tensors: list[TensorSensitivity]) -> tuple[list[SuperWeight], int]:
        largest = max(math.prod(tensor.shape) for tensor in tensors)
        step = self._step("look for super weights", "supers", largest, tensors=[asdict(tensor) for tensor in tensors])
        ((_, output),) = self._executor.outputs([step])
        found = json.loads(output.read_bytes())
        self._executor.forget([step])
        return [SuperWeight(**each) for each in found["super_weights"]], found["n_chunks"]

    def _step(self, name: str, function: str, exchanged: int, **parameters: Any) -> Step:
        function = f"gguf_golf.sensitivity.steps:{function}"
        needs = Needs(self._executor.cores, OWN_BYTES + 4 * exchanged)
        return Step(name, function, self._files, self._numbers | parameters, needs)


def tensor(task: Task) -> Iterator[bytes]:
    """The step: one tensor's entry, as JSON."""
    measuring = _resident(task)
    yield json.dumps(asdict(measuring.measure_tensor(measuring.model.tensor(task.parameters["tensor"])))).encode()


def supers(task: Task) -> Iterator[bytes]:
    """The step: the super weights, and how many chunks the text had, as JSON."""
    measuring = _resident(task)
    tensors = [result.tensor_from_json(entry) for entry in task.parameters["tensors"]]
    found = [asdict(each) for each in measuring.super_weights(tensors)]
    yield json.dumps({"super_weights": found, "n_chunks": measuring.n_chunks}).encode()


def _resident(task: Task) -> Measuring:
    files, numbers = task.inputs, task.parameters
    question = Question(
        files["model"],
        files["text"],
        files.get("imatrix"),
        files.get("hessian"),
        numbers["n_ctx"],
        numbers["n_chunks"],
        tuple(numbers["types"]),
    )
    return resident(question, lambda: question.measuring(task.scratch / "sensitivity", task.cores))
