"""Collect an importance matrix: run a text through the model and sum x^2 per input channel of every linear layer.

The evaluation callback of llama.cpp sees each matrix product while it is computed; numpy sums over its input buffer.
Chunks, BOS and tensors taken are those of llama-imatrix (tools/imatrix/imatrix.cpp), so both give the same numbers.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.calibrate.hessian import Accumulator, Rows, Survey
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import types
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.abi import GgmlTensor
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.runtime.tensor import op_name, view

F32 = types.get("f32").id
MIN_ROWS = 16  # llama-imatrix ignores smaller products: they are not the batch
OUTPUT_TENSORS = ("output.weight", "token_embd.weight")  # the latter where embedding and output are tied


def collect(
    model_path: str | Path,
    text_path: str | Path,
    *,
    n_ctx: int = 512,
    n_chunks: int | None = None,
    threads: int | None = None,
    process_output: bool = False,
    hessian_path: Path | None = None,
) -> Imatrix:
    """Importance of every `blk.*` linear layer of a GGUF over the first `n_chunks` chunks of a text.

    `process_output` adds the output matrix; `hessian_path` is where to write the Hessians of all layers' inputs, if
    they are wanted. Raises InputError for a text shorter than one chunk or a file that cannot be written, DataError
    for activations that are not finite.
    """
    with LoadedModel(model_path) as model:
        chunks = text_chunks(model, text_path, n_ctx, n_chunks)
        if hessian_path is None:
            collector = _run(model, chunks, Collector(process_output), threads, "imatrix")
        else:
            survey = Survey()
            _run(model, chunks[:1], Collector(process_output, survey.observe), threads, "layers")
            with Accumulator(hessian_path, survey) as sums:
                collector = _run(model, chunks, Collector(process_output, sums.observe), threads, "imatrix, Hessians")
    if not collector.entries:
        raise InputError(f"{model_path}: no linear layer was seen; is this a language model?")
    return Imatrix(collector.entries, [str(text_path)], len(chunks), n_ctx)


def _run(
    model: LoadedModel, chunks: NDArray[np.int32], collector: "Collector", threads: int | None, label: str
) -> "Collector":
    """Run chunks int32 [n, n_ctx] through the model under the collector's eyes."""
    n_ctx = chunks.shape[1]
    positions = np.arange(n_ctx, dtype=np.int32)
    every = np.ones(n_ctx, np.bool_)  # logits of all tokens, or the last layer's FFN would see only some
    with model.context(n_ctx, threads=threads, cb_eval=collector.callback) as context:
        for chunk in ProgressBar(chunks, desc=label, unit="chunk"):
            context.clear()
            context.decode(with_bos(model, chunk), positions, every)
            if collector.error is not None:
                raise collector.error
    return collector


class Collector:
    """Gathers entries from the evaluation callback. C cannot pass an exception on: `error` keeps the first.

    `observe`, if given, is shown all rows that enter a matrix.
    """

    def __init__(self, process_output: bool, observe: Callable[[Rows], None] | None = None) -> None:
        self.entries: dict[str, ImatrixEntry] = {}
        self.error: Exception | None = None
        self._process_output = process_output
        self._observe = observe

    def callback(self, pointer: int, ask: bool, _user_data: Any) -> bool:
        """Asked first whether a node matters, then called again with its inputs and result in place."""
        try:
            tensor = ctypes.cast(pointer, ctypes.POINTER(GgmlTensor)).contents
            if ask:
                return self._wanted(tensor)
            if op_name(tensor.op) == b"MUL_MAT_ID":
                self._add_experts(tensor)
            else:
                self._add_dense(tensor)
            return True
        except Exception as error:
            self.error = self.error or error
            return False

    def _wanted(self, tensor: GgmlTensor) -> bool:
        op = op_name(tensor.op)
        if op == b"MUL_MAT_ID":
            return True
        if op != b"MUL_MAT":
            return False
        x = tensor.src[1].contents
        if x.ne[1] < MIN_ROWS or x.type != F32:
            return False
        name = _weight_name(tensor)
        return name.startswith("blk.") or (self._process_output and name in OUTPUT_TENSORS)

    def _add_dense(self, tensor: GgmlTensor) -> None:
        """x is [ne3, ne2, rows, k]; further dimensions of the weight, if any, are matrices of their own."""
        weight, x = tensor.src[0].contents, view(tensor.src[1].contents, np.float32)
        n_mat = weight.ne[2] * weight.ne[3]
        entry = self._entry(_weight_name(tensor), n_mat, x.shape[-1], n_counts=1)
        for i3 in range(x.shape[0]):
            for i2 in range(x.shape[1]):
                mat = (i3 % weight.ne[3]) * weight.ne[2] + i2 % weight.ne[2]
                _accumulate(entry, mat, x[i3, i2])
                self._show(tensor, n_mat, mat, x[i3, i2])
        entry.counts += x.shape[0] * x.shape[1] * x.shape[2] // n_mat
        _check_finite(entry, tensor)

    def _add_experts(self, tensor: GgmlTensor) -> None:
        """x is [1, tokens, 1 or slots, k], ids [1, 1, tokens, slots]: the expert that each slot of a token chose."""
        weight, x = tensor.src[0].contents, view(tensor.src[1].contents, np.float32)[0]
        ids = view(tensor.src[2].contents, np.int32)[0, 0]
        entry = self._entry(_weight_name(tensor), weight.ne[2], x.shape[-1], n_counts=weight.ne[2])
        slots = np.broadcast_to(np.arange(ids.shape[1]) % x.shape[1], ids.shape)
        for expert in np.unique(ids):
            token, slot = np.nonzero(ids == expert)
            rows = x[token, slots[token, slot]]
            _accumulate(entry, int(expert), rows)
            self._show(tensor, weight.ne[2], int(expert), rows)
            entry.counts[expert] += len(token)
        _check_finite(entry, tensor)

    def _show(self, tensor: GgmlTensor, n_mat: int, mat: int, x: NDArray[np.float32]) -> None:
        if self._observe is not None:
            source = tensor.src[1].contents.name.decode("utf-8", "replace")
            self._observe(Rows(_weight_name(tensor), source, n_mat, mat, x))

    def _entry(self, name: str, n_mat: int, k: int, n_counts: int) -> ImatrixEntry:
        if name not in self.entries:
            self.entries[name] = ImatrixEntry(
                np.zeros((n_mat, k), np.float64),
                np.zeros(n_counts, np.int64),
                np.zeros((n_mat, k), np.float32),
            )
        return self.entries[name]


def _accumulate(entry: ImatrixEntry, mat: int, x: np.ndarray) -> None:
    """Add rows x f32 [n, k]: float32 within one batch (a relative error of 1e-6), float64 across batches."""
    entry.in_sum2[mat] += np.einsum("ij,ij->j", x, x)
    peak = entry.peak
    assert peak is not None
    np.maximum(peak[mat], x.max(0), out=peak[mat])
    np.maximum(peak[mat], -x.min(0), out=peak[mat])


def _check_finite(entry: ImatrixEntry, tensor: GgmlTensor) -> None:
    if not np.isfinite(entry.in_sum2).all():
        raise DataError(f"activations into {_weight_name(tensor)} are NaN or Inf: the model is damaged")


def _weight_name(tensor: GgmlTensor) -> str:
    """The weight's name without the marks that a backend may add: CUDA0#blk.0.attn_k.weight#0."""
    parts = tensor.src[0].contents.name.decode("utf-8", "replace").split("#")
    return str(parts[1] if len(parts) > 1 else parts[0])
