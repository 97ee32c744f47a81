"""Runs over chunks of a text here or on an executor: there, a step is a file and SPAN chunks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.evaluate import perplexity
from gguf_golf.evaluate.divergence import TOKEN_SCORE
from gguf_golf.evaluate.logits_file import LogitsFile, LogitsShape
from gguf_golf.evaluate.perplexity import RunBase, RunScores
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.steps import Executor, File, Needs, Step, Task, current, resident

SPAN = 1
"""Chunks of a step. More would leave workers without work: a control has sixteen."""


def opened(path: Path, *, in_place: bool = False) -> LoadedModel:
    """The model; its vocabulary alone, where the weights are for an executor's workers."""
    return LoadedModel(path, vocab_only=True) if current() else LoadedModel(path, in_place=in_place)


def base_run(model: LoadedModel, chunks: NDArray[np.int32], threads: int) -> RunBase:
    """What runs the base over a range of its chunks int32 [n_chunk, n_ctx]: `perplexity.base_rows`, here or there."""
    executor = current()
    if executor is None:
        return lambda todo: perplexity.base_rows(model, chunks, todo, threads)
    shape = LogitsShape(chunks.shape[1], model.n_vocab, len(chunks))
    row_bytes = 2 * shape.n_row + 4  # a row, and its -log p

    def run(todo: range) -> Iterator[perplexity.BaseRows]:
        files = {"model": File.of(model.path)}
        spans = [(span, {"tokens": chunks[span.start : span.stop].tolist()}) for span in _spans(todo)]
        for data in _outputs(executor, model.path.name, "base", files, spans):
            n = len(data) // row_bytes
            rows, nll = data[: 2 * n * shape.n_row], data[2 * n * shape.n_row :]
            yield rows.view(np.uint16).reshape(n, shape.n_row), nll.view(np.float32)

    return run


def scores_run(
    model: LoadedModel, base: LogitsFile, threads: int, n_ubatch: int, *, as_stored: bool = False
) -> RunScores:
    """What scores a model on a range of chunks: `perplexity.token_scores`, here or there."""
    executor = current()
    if executor is None:
        return lambda todo: perplexity.token_scores(model, base, todo, threads, n_ubatch)

    def run(todo: range) -> Iterator[NDArray[np.void]]:
        files = {"model": File.of(model.path), "base": File.of(base.path)}
        same = {"n_ubatch": n_ubatch, "as_stored": as_stored}
        spans = [(span, same | {"chunks": [span.start, span.stop]}) for span in _spans(todo)]
        return (data.view(TOKEN_SCORE) for data in _outputs(executor, model.path.name, "scores", files, spans))

    return run


def base(task: Task) -> Iterator[NDArray[Any]]:
    """The step: all rows of some chunks, and then all -log p of their targets."""
    chunks = np.array(task.parameters["tokens"], np.int32)
    path, nll = task.inputs["model"], []
    model = resident(("loaded", path, False), lambda: LoadedModel(path))
    for rows, of_targets in perplexity.base_rows(model, chunks, range(len(chunks)), task.cores):
        yield rows
        nll.append(of_targets)
    yield np.concatenate(nll)


def scores(task: Task) -> Iterator[NDArray[np.uint8]]:
    """The step: the scores of some chunks."""
    path, as_stored = task.inputs["model"], bool(task.parameters["as_stored"])
    model = resident(("loaded", path, as_stored), lambda: LoadedModel(path, in_place=as_stored))
    base, todo = LogitsFile(task.inputs["base"]), range(*task.parameters["chunks"])
    for found in perplexity.token_scores(model, base, todo, task.cores, task.parameters["n_ubatch"]):
        yield found.view(np.uint8)


def _spans(todo: range) -> list[range]:
    return [todo[first : first + SPAN] for first in range(0, len(todo), SPAN)]


def _outputs(
    executor: Executor, name: str, function: str, files: dict[str, File], spans: list[tuple[range, dict[str, Any]]]
) -> Iterator[NDArray[np.uint8]]:
    """What each span's step made, u8; dropped when the next is asked for."""
    needs = Needs(executor.cores, files["model"].bytes)
    steps = [
        Step(
            f"{name} on chunks {span.start + 1}-{span.stop}",
            f"gguf_golf.evaluate.steps:{function}",
            files,
            parameters,
            needs,
        )
        for span, parameters in spans
    ]
    for step, output in executor.outputs(steps):
        yield np.fromfile(output, np.uint8)
        executor.forget([step])
