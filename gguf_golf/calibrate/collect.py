"""Collect an importance matrix: run a text through the model and sum x^2 per input channel of every linear layer.

The evaluation callback of llama.cpp sees each matrix product while it is computed; numpy sums over its input buffer.
Chunks, BOS and tensors taken are those of llama-imatrix (tools/imatrix/imatrix.cpp), so both give the same numbers.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from gguf_golf import __version__, files
from gguf_golf.calibrate import hessian
from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.calibrate.hessian import Accumulator, Rows, Survey
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.calibrate.state import State
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import quant_types
from gguf_golf.interrupt import deferred
from gguf_golf.models.hashing import stamp
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime import library
from gguf_golf.runtime.abi import GgmlTensor
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.runtime.tensor import op_name, view

F32 = quant_types.get("f32").id
KEEP_EVERY = 16  # chunks, after which the Hessians' sums are copied: a hundredth of the time that they took
MIN_ROWS = 16  # llama-imatrix ignores smaller products: they are not the batch
OUTPUT_TENSORS = ("output.weight", "token_embd.weight")  # the latter where embedding and output are tied


def collect(
    model_path: Path,
    text: Path | Sequence[Path],
    *,
    n_ctx: int = 512,
    n_chunks: int | None = None,
    threads: int | None = None,
    process_output: bool = False,
    out: Path | None = None,
    hessian_path: Path | None = None,
    force: bool = False,
) -> Imatrix:
    """Importance of every `blk.*` linear layer of a GGUF over the first `n_chunks` chunks of a text, or of each text.

    `process_output` adds the output matrix; `out` is where to write the imatrix, and `hessian_path` the Hessians of
    all layers' inputs, if they are wanted. With `out`, a run that was interrupted resumes. Raises InputError for a text
    shorter than one chunk or a file that cannot be written, DataError for activations that are not finite, and
    KeyboardInterrupt once the chunk that Ctrl-C met is finished.
    """
    texts = [text] if isinstance(text, Path) else list(text)
    inputs = [model_path, *texts]
    outputs = [(out, imatrix_file.MARK), (hessian_path, hessian.MARK)]
    for path, mark in outputs:
        if path is not None:
            files.check_output(path, inputs, mark=mark, force=force)
    if out is not None and hessian_path is not None and os.path.realpath(out) == os.path.realpath(hessian_path):
        raise InputError(f"{out} is named for the imatrix and for the Hessians: give each a name of its own")
    with ExitStack() as stack:
        if out is not None:
            stack.enter_context(files.locked(out))
        model = stack.enter_context(LoadedModel(model_path))
        chunks = np.concatenate([text_chunks(model, path, n_ctx, n_chunks) for path in texts])
        job = {
            "version": __version__,
            "runtime": str(library.folder()),
            "inputs": [stamp(Path(path)) for path in inputs],
            "n_ctx": n_ctx,
            "process_output": process_output,
            "hessian": None if hessian_path is None else os.path.realpath(hessian_path),
        }
        state = State(None if out is None else out.with_name(out.name + ".state"), job)
        done, entries = state.load()
        if done > len(chunks):
            done, entries = 0, {}
        sums = None
        if hessian_path is not None:
            survey = Survey()
            _run(model, chunks[:1], Collector(process_output, observe=survey.observe), threads, "layers")
            resume = done > 0 and hessian.kept(hessian_path, survey, {name: e.counts for name, e in entries.items()})
            done, entries = (done, entries) if resume else (0, {})
            sums = Accumulator(hessian_path, survey, resume=resume, inputs=[*inputs, out], force=force)
            stack.enter_context(sums)
        collector = Collector(process_output, entries, observe=None if sums is None else sums.observe)

        def keep(n_done: int, stopping: bool) -> None:
            if sums is not None:
                if out is None or not (stopping or n_done % KEEP_EVERY == 0):
                    return
                try:
                    sums.save()
                except InputError as error:
                    click.echo(f"{error}: if this run ends now, the next one starts over", err=True)
                    return
            state.save(n_done, collector.entries)

        label = "imatrix" if sums is None else "imatrix, Hessians"
        _run(model, chunks, collector, threads, label, done, keep)
        if not collector.entries:
            raise InputError(f"{model_path}: no linear layer was seen; is this a language model?")
        counts = np.bincount(chunks.ravel(), minlength=model.n_vocab)
        collected = Imatrix(collector.entries, [str(path) for path in texts], len(chunks), n_ctx, counts)
        if out is not None:
            imatrix_file.write(collected, out, inputs)
    state.remove()
    if hessian_path is not None:
        hessian.kept_path(hessian_path).unlink(missing_ok=True)
    return collected


def _run(
    model: LoadedModel,
    chunks: NDArray[np.int32],
    collector: "Collector",
    threads: int | None,
    label: str,
    done: int = 0,
    keep: Callable[[int, bool], None] | None = None,
) -> None:
    """Run chunks int32 [n, n_ctx] through the model from chunk `done` on, observed by the collector.

    `keep(chunks done, whether the run stops)` is called after each. Raises what went wrong in the callback, and
    KeyboardInterrupt between two chunks.
    """
    n_ctx = chunks.shape[1]
    positions = np.arange(n_ctx, dtype=np.int32)
    every = np.ones(n_ctx, np.bool_)  # logits of all tokens, or the last layer's FFN would see only some
    bar = ProgressBar(chunks[done:], desc=label, unit="chunk", initial=done, total=len(chunks))
    with model.context(n_ctx, threads=threads, cb_eval=collector.callback) as context, deferred() as interrupted:
        for n_done, chunk in enumerate(bar, done + 1):
            context.clear()
            try:
                context.decode(with_bos(model, chunk), positions, every)
            finally:
                if collector.error is not None:
                    raise collector.error
            stopping = interrupted()
            if keep is not None:
                keep(n_done, stopping)
            if stopping:
                if keep is not None:
                    click.echo(f"interrupted after chunk {n_done}: run the same command again to resume", err=True)
                raise KeyboardInterrupt


class Collector:
    """Adds to `entries` from the evaluation callback. C cannot pass an exception on: `error` keeps the first.

    `observe`, if given, is shown all rows that enter a matrix.
    """

    def __init__(
        self,
        process_output: bool,
        entries: dict[str, ImatrixEntry] | None = None,
        observe: Callable[[Rows], None] | None = None,
    ) -> None:
        self.entries: dict[str, ImatrixEntry] = {} if entries is None else entries
        self.error: BaseException | None = None
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
        except BaseException as error:  # Ctrl-C too: whoever runs the model raises it again
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
        n_experts = weight.ne[2] * weight.ne[3]
        entry = self._entry(_weight_name(tensor), n_experts, x.shape[-1], n_counts=1)
        for i3 in range(x.shape[0]):
            for i2 in range(x.shape[1]):
                expert = (i3 % weight.ne[3]) * weight.ne[2] + i2 % weight.ne[2]
                _accumulate(entry, expert, x[i3, i2])
                self._show(tensor, n_experts, expert, x[i3, i2])
        entry.counts += x.shape[0] * x.shape[1] * x.shape[2] // n_experts
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

    def _show(self, tensor: GgmlTensor, n_experts: int, expert: int, x: NDArray[np.float32]) -> None:
        if self._observe is not None:
            source = tensor.src[1].contents.name.decode("utf-8", "replace")
            self._observe(Rows(_weight_name(tensor), source, n_experts, expert, x))

    def _entry(self, name: str, n_experts: int, k: int, n_counts: int) -> ImatrixEntry:
        if name not in self.entries:
            self.entries[name] = ImatrixEntry(
                np.zeros((n_experts, k), np.float64),
                np.zeros(n_counts, np.int64),
                np.zeros((n_experts, k), np.float32),
            )
        return self.entries[name]


def _accumulate(entry: ImatrixEntry, expert: int, x: np.ndarray) -> None:
    """Add rows x f32 [n, k]: float32 within one batch (a relative error of 1e-6), float64 across batches."""
    entry.in_sum2[expert] += np.einsum("ij,ij->j", x, x)
    peak = entry.peak
    assert peak is not None
    np.maximum(peak[expert], x.max(0), out=peak[expert])
    np.maximum(peak[expert], -x.min(0), out=peak[expert])


def _check_finite(entry: ImatrixEntry, tensor: GgmlTensor) -> None:
    if not np.isfinite(entry.in_sum2).all():
        raise DataError(f"activations into {_weight_name(tensor)} are NaN or Inf: the model is damaged")


def _weight_name(tensor: GgmlTensor) -> str:
    """The weight's name without the marks that a backend may add: CUDA0#blk.0.attn_k.weight#0."""
    parts = tensor.src[0].contents.name.decode("utf-8", "replace").split("#")
    return str(parts[1] if len(parts) > 1 else parts[0])
