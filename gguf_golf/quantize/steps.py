"""Encoding on an executor: a step is a tensor, or a range of the rows of a large one."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_golf.container.tensors import Stored
from gguf_golf.encode import Guide, open_encoder
from gguf_golf.errors import InputError
from gguf_golf.files import part_paths
from gguf_golf.formats import quant_types
from gguf_golf.models import LazyTensor, open_model
from gguf_golf.quantize.prepare import Prepared
from gguf_golf.quantize.reuse import reusing
from gguf_golf.quantize.stored import encoded, slabs
from gguf_golf.quantize.writer import Produce, here
from gguf_golf.steps import Executor, File, Needs, Step, Task, current, resident

STEP_WEIGHTS = 1 << 25
"""Weights of a step: some ten seconds of one core, so that handing them out costs nothing."""

Parts = Iterator[NDArray[np.uint8]]


def producer(made: Prepared) -> Produce:
    """What makes the tensors of a file: the executor of this block, or else this process; or an earlier file did."""
    executor = current()
    produce = here if executor is None else lambda tensors: _on(executor, made, tensors)
    return produce if made.job.encoded is None else reusing(made.job.encoded, made, produce)


def encode(task: Task) -> Parts:
    """The step: the bytes of some slabs of a weight in a type."""
    source, imatrix, hessian = (task.inputs.get(name) for name in ("source", "imatrix", "hessian"))
    device, requantize = str(task.parameters["device"]), bool(task.parameters["allow_requantize"])
    assert source is not None
    model = resident(
        ("model", source, requantize), lambda: nullcontext(open_model(source, allow_requantize=requantize))
    )
    guide = resident(("guide", imatrix, hessian), lambda: nullcontext(Guide.open(imatrix, hessian)))
    encoder = resident(("encoder", device, task.cores), lambda: nullcontext(open_encoder(device, task.cores)))
    tensor, quant_type = model.tensor(task.parameters["tensor"]), quant_types.get(task.parameters["type"])
    first, last = task.parameters["slabs"]
    return encoded(tensor, slabs(tensor)[first:last], quant_type, guide, encoder)


def _on(executor: Executor, made: Prepared, tensors: Sequence[Stored]) -> Iterator[tuple[Stored, Parts]]:
    """What is costly is made by the executor, the rest here."""
    worth = [stored for stored in tensors if made.is_costly(stored)]
    files = _files(made) if worth else {}
    steps = {each.name: _steps(executor, made, made.model.tensor(each.name), each, files) for each in worth}
    outputs = executor.outputs([step for of_tensor in steps.values() for step in of_tensor])
    for stored in tensors:
        if stored.name not in steps:
            yield stored, stored.parts()
            continue
        yield stored, (np.fromfile(next(outputs)[1], np.uint8) for _ in steps[stored.name])
        executor.forget(steps[stored.name])  # the writer asks for the next tensor when this one is on disk


def _files(made: Prepared) -> dict[str, File]:
    if made.source.is_dir():
        raise InputError(f"{made.source} is a folder, and an executor takes a GGUF: make it with `gguf-golf convert`")
    paths: dict[str, Path | None] = {"source": made.source, "imatrix": made.job.imatrix, "hessian": made.job.hessian}
    paths |= {part.name: part for part in part_paths(made.source) if part != made.source}  # beside each other
    return {name: File.of(path) for name, path in paths.items() if path is not None}


def _steps(
    executor: Executor, made: Prepared, tensor: LazyTensor, stored: Stored, files: dict[str, File]
) -> list[Step]:
    cut, weights = slabs(tensor), tensor.n_rows * tensor.shape[-1]
    each = -(-len(cut) * STEP_WEIGHTS // max(weights, STEP_WEIGHTS)) or 1
    largest = max(last - first for first, last in cut) * tensor.shape[-1]
    return [
        Step(
            f"encode {stored.name} {stored.type.name}" + ("" if each >= len(cut) else f" {first}"),
            "gguf_golf.quantize.steps:encode",
            files,
            {
                "tensor": stored.name,
                "type": stored.type.name,
                "slabs": [first, first + each],
                "device": made.job.device,
                "allow_requantize": made.job.allow_requantize,
            },
            Needs(executor.cores, 8 * largest, made.job.device == "cuda"),
        )
        for first in range(0, len(cut), each)
    ]
