"""Quantize a model into a GGUF file: one slab of rows at a time, into its final place, resumable.

The file is written beside its destination as NAME.partial, with a journal of the tensors that are finished, and renamed
when it is whole. A run that was interrupted goes on where it stopped if the job is the same.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate import feedback
from gguf_golf.calibrate.hessian import Hessians
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.errors import InputError
from gguf_golf.formats.types import TCQ, QuantType
from gguf_golf.models import LazyTensor, MetadataField, Model
from gguf_golf.plan.layout import Layout, lay_out
from gguf_golf.progress import ProgressBar
from gguf_golf.quantize.assignment import check_imatrix
from gguf_golf.runtime import ggml, gpu
from gguf_golf.threads import resolve

SLAB_WEIGHTS = 1 << 23
"""Weights read and quantized at a time: bounds memory, and is long enough to keep every thread busy."""


@dataclass(frozen=True)
class Written:
    """What a finished file holds: bytes of the file, and of each tensor's data."""

    path: Path
    file_bytes: int
    tensor_bytes: dict[str, int]


def write(
    model: Model,
    chosen: dict[str, QuantType],
    out: Path,
    *,
    metadata: list[MetadataField] | None = None,
    imatrix: Imatrix | None = None,
    hessians: Hessians | None = None,
    threads: int | None = None,
    on_gpu: bool = False,
    progress: bool = True,
) -> Written:
    """Write `out` with every tensor of the model in its chosen type. `metadata` replaces the model's own if given.

    With `hessians`, TCQ types are encoded with error feedback wherever there is a Hessian. With `on_gpu`, TCQ types are
    encoded on a GPU, after a trial that its bytes are the CPU's.

    Raises InputError for types that need an imatrix or tensors that the imatrix lacks, DataError for NaN weights, and
    BuildError where there is no such GPU or no runtime for it.
    """
    check_imatrix(chosen, imatrix is not None)
    if on_gpu:
        gpu.check()
        if hessians is not None:
            feedback.check_gpu()
    layout = lay_out(model, chosen, model.metadata if metadata is None else metadata)
    job = _job_hash(model, chosen, layout, imatrix, hessians)
    prepared = None if hessians is None else feedback.Prepared(hessians)
    partial, journal = out.with_name(out.name + ".partial"), out.with_name(out.name + ".journal")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _PartialFile(partial, journal, layout, job) as target:
            _write_tensors(
                model,
                chosen,
                target,
                imatrix,
                prepared,
                threads=resolve(threads),
                on_gpu=on_gpu,
                progress=progress,
            )
        os.replace(partial, out)
        journal.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {out} ({layout.file_bytes / 1e6:.1f} MB): {error.strerror}; "
            f"free some space or name another place, then run the same command again: finished tensors are kept"
        ) from error
    return Written(out, layout.file_bytes, layout.sizes)


class _PartialFile:
    """The file under construction and its journal of finished tensors."""

    def __init__(self, path: Path, journal: Path, layout: Layout, job: str) -> None:
        self.layout = layout
        self.done: set[str] = set()
        self._path, self._journal, self._job = path, journal, job

    def __enter__(self) -> "_PartialFile":
        if self._resumable():
            lines = self._journal.read_text(encoding="utf-8").splitlines()
            self.done = {json.loads(line) for line in lines[1:] if line.endswith('"')}
            self._file: BinaryIO = self._path.open("r+b")
        else:
            self._file = self._path.open("w+b")
            self._file.write(self.layout.header)
            self._file.truncate(self.layout.file_bytes)
            self._journal.write_text(self._job + "\n", encoding="utf-8")
        self._log = self._journal.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        self._file.close()

    def _resumable(self) -> bool:
        if not (self._path.is_file() and self._journal.is_file()):
            return False
        text = self._journal.read_text(encoding="utf-8")
        return text.startswith(self._job + "\n") and self._path.stat().st_size == self.layout.file_bytes

    def seek(self, name: str) -> None:
        """Go to where this tensor's data starts."""
        self._file.seek(self.layout.offsets[name])

    def write(self, data: NDArray[np.uint8]) -> None:
        """Write the next bytes of the current tensor."""
        self._file.write(data.data)

    def finish(self, name: str) -> None:
        """Note that a tensor is whole; its bytes reach the disk before the note does."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._log.write(json.dumps(name) + "\n")
        self._log.flush()
        self.done.add(name)


def _write_tensors(
    model: Model,
    chosen: dict[str, QuantType],
    target: _PartialFile,
    imatrix: Imatrix | None,
    prepared: feedback.Prepared | None,
    *,
    threads: int,
    on_gpu: bool,
    progress: bool,
) -> None:
    todo = [tensor for tensor in model.tensors if tensor.name not in target.done]
    total = sum(tensor.n_rows * tensor.shape[-1] for tensor in model.tensors)
    left = sum(tensor.n_rows * tensor.shape[-1] for tensor in todo)
    bar = ProgressBar(
        total=total, initial=total - left, unit="w", unit_scale=True, desc="quantizing", disable=not progress
    )
    with bar:
        for tensor in todo:
            quant_type = chosen[tensor.name]
            bar.set_postfix_str(f"{tensor.name} {quant_type.name}", refresh=False)
            target.seek(tensor.name)
            n_experts = _n_experts(tensor)
            for first, last, expert, importance in _slabs(tensor, quant_type, imatrix):
                rows = tensor.load_rows(first, last)
                answer = prepared and prepared.get(tensor.name, expert, n_experts, quant_type, rows.shape[1])
                if answer:
                    target.write(feedback.quantize(quant_type, rows, answer, threads, on_gpu))
                elif on_gpu and quant_type in TCQ.values():
                    target.write(gpu.quantize(quant_type.id, rows, importance))
                else:
                    target.write(ggml.quantize(quant_type.id, rows, importance, threads))
                bar.update(rows.size)
            target.finish(tensor.name)


def _n_experts(tensor: LazyTensor) -> int:
    return int(np.prod(tensor.shape[:-2], dtype=np.int64)) if len(tensor.shape) > 2 else 1


def _slabs(
    tensor: LazyTensor, quant_type: QuantType, imatrix: Imatrix | None
) -> list[tuple[int, int, int, NDArray[np.float32] | None]]:
    """(first row, last row, expert, importance) of each slab; a slab never crosses from one expert to the next."""
    n_experts = _n_experts(tensor)
    rows_each = tensor.n_rows // n_experts
    importance = _importance(tensor, n_experts, imatrix) if quant_type.is_quantized else None
    step = max(1, SLAB_WEIGHTS // tensor.shape[-1])
    slabs = []
    for expert in range(n_experts):
        weight = None if importance is None else importance[expert]
        for first in range(expert * rows_each, (expert + 1) * rows_each, step):
            slabs.append((first, min(first + step, (expert + 1) * rows_each), expert, weight))
    return slabs


def _importance(tensor: LazyTensor, n_experts: int, imatrix: Imatrix | None) -> NDArray[np.float32] | None:
    """E[x^2] per input channel, f32 [n_experts, k]; None where the imatrix says nothing about this tensor.

    Embedding tables are looked up, not multiplied, so no imatrix has them, except a head tied to its embedding.
    """
    if imatrix is None or tensor.name not in imatrix.entries:
        return None
    importance = imatrix.importance(tensor.name)
    if importance.shape != (n_experts, tensor.shape[-1]):
        raise InputError(
            f"the imatrix has {importance.shape} values for {tensor.name}, the model needs "
            f"{(n_experts, tensor.shape[-1])}: it was collected on another model"
        )
    return np.ascontiguousarray(importance, np.float32)


def _job_hash(
    model: Model, chosen: dict[str, QuantType], layout: Layout, imatrix: Imatrix | None, hessians: Hessians | None
) -> str:
    """What a partial file must have been made from to be continued: names, shapes, types, header, importance.

    The first and last row of every tensor stand for the weights, so that another checkpoint of the same shape is
    told apart without reading it all.
    """
    digest = hashlib.sha256(layout.header)
    for tensor in model.tensors:
        digest.update(f"{tensor.name} {tensor.shape} {chosen[tensor.name].name}\n".encode())
        for row in {0, tensor.n_rows - 1}:
            digest.update(tensor.load_rows(row, row + 1).tobytes())
    if imatrix is not None:
        for name, entry in sorted(imatrix.entries.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(entry.in_sum2).tobytes())
    if hessians is not None:
        digest.update(hessians.fingerprint())
    return digest.hexdigest()
