"""A running model whose weights can be exchanged in memory: the KL divergence that an error in one tensor causes.

No file is written: llama.cpp is shown other data for a tensor, the text runs, it is shown the file's again. The model
stays in the mapped file: the system keeps as much of it in memory as there is, and this process holds one tensor.
"""

import ctypes
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import quant_types
from gguf_golf.runtime import ggml
from gguf_golf.runtime.abi import GgmlTensor
from gguf_golf.runtime.session import Context, LoadedModel
from gguf_golf.threads import resolve

FloatArray = NDArray[np.float32]
Restore = Callable[[NDArray[np.int64]], None]

_PLAIN_TYPES = {t.id: t.name for t in quant_types.ALL.values() if t.holds_weights and not t.is_quantized}
_COMPARED = 1 << 21  # probabilities that are compared at a time by one thread, of at most _ROWS positions
_ROWS = 64
_LOGITS = 1 << 24  # logits asked for at a time: bounds memory for large vocabularies
_ALIGNMENT = 64
_MIN_TOKENS = 32  # and in a batch, however large the vocabulary: smaller ones are slow, and calibration ignores them

SEGMENTS = 16
"""A context is scored in so many equal parts, apart from those that are only context: error bars come from them."""


@dataclass(frozen=True)
class _Weight:
    """A weight of llama.cpp's: its struct, ggml type, NumPy shape [n_rows, n_cols], and the file's bytes, mapped."""

    tensor: GgmlTensor
    type_id: int
    shape: tuple[int, int]
    data: NDArray[np.uint8]


class Probe:
    """A GGUF of plain numbers (F32, F16, BF16) on the first chunks of a text, ready to be disturbed.

    Use as a context manager. Everything is scored that has at least a quarter of the context before it: the last
    SCORED of SEGMENTS parts of each chunk. `n_observed` chunks, if more than `n_chunks`, are run undisturbed only.
    Raises InputError for a text shorter than one chunk.
    """

    SCORED = SEGMENTS - SEGMENTS // 4

    def __init__(
        self,
        path: Path,
        text: Path,
        *,
        n_ctx: int,
        n_chunks: int,
        scratch: Path,
        threads: int | None,
        n_observed: int = 0,
    ) -> None:
        self.threads = resolve(threads)
        self._model = LoadedModel(path, mapped=True)
        self._observed = text_chunks(self._model, text, n_ctx, max(n_chunks, n_observed))
        self.chunks = self._observed[:n_chunks]
        self._positions = np.arange(n_ctx, dtype=np.int32)
        self._first = n_ctx * (SEGMENTS - self.SCORED) // SEGMENTS
        self._batch = min(n_ctx, max(_MIN_TOKENS, _LOGITS // self._model.n_vocab))
        self._weights: dict[str, _Weight] = {}
        self._pool = ThreadPoolExecutor(self.threads)
        self._context: Context | None = None
        self._base_path = scratch

    def __enter__(self) -> "Probe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if self._context is not None:
            self._context.close()
        self._model.close()
        self._base_path.unlink(missing_ok=True)

    def run_base(self, observe: Callable[[int, int, bool], bool]) -> None:
        """Run the undisturbed model once; must come before `kld`.

        `observe(chunk, node, ask)` is an evaluation callback of llama.cpp: asked about each operation before it runs
        (node is a pointer to it), and called again, not asking, for those that it wants.
        """
        chunk_index, error = 0, None

        def callback(pointer: int, ask: bool, _user_data: Any) -> bool:
            nonlocal error
            try:
                if ask:
                    self._find_weight(ctypes.cast(pointer, ctypes.POINTER(GgmlTensor)).contents)
                return observe(chunk_index, pointer, ask)
            except BaseException as raised:  # C cannot pass an exception on
                error = error or raised
                return False

        with (
            files.named_errors(self._base_path),
            self._base_path.open("wb") as file,
            self._new_context(callback) as context,
        ):
            for chunk_index, chunk in enumerate(self._observed):
                try:
                    for _, logits in self._logits(context, chunk):
                        if chunk_index < len(self.chunks):
                            for rows in _parts(logits):
                                file.write(_log_softmax(logits[rows]).data)
                except DataError as failed:
                    raise error or failed from None
                if error is not None:
                    raise error
        self._context = self._new_context()

    def _new_context(self, callback: Callable[[Any, bool, Any], bool] | None = None) -> Context:
        n_ctx = len(self._positions)
        return self._model.context(n_ctx, n_batch=self._batch, threads=self.threads, cb_eval=callback)

    @property
    def weights(self) -> dict[str, tuple[int, int]]:
        """The weights that `disturbed` can exchange, with their shapes [rows, columns]."""
        return {name: weight.shape for name, weight in self._weights.items()}

    @contextmanager
    def disturbed(self, name: str, rows: FloatArray | Iterable[FloatArray], first_row: int = 0) -> Iterator[Restore]:
        """Within the block, rows first_row.. of the named weight are `rows` f32 [n, columns], whole or in slabs; those
        that are restored, by number, have the file's values again."""
        weight, end = self._weight(name), first_row
        changed = _aligned(weight.data.shape)
        for slab in [rows] if isinstance(rows, np.ndarray) else rows:
            changed[end : end + len(slab)] = ggml.quantize(weight.type_id, slab, threads=self.threads)
            end += len(slab)
        changed[:first_row], changed[end:] = weight.data[:first_row], weight.data[end:]
        before = weight.tensor.data
        weight.tensor.data = changed.ctypes.data

        def restore(numbers: NDArray[np.int64]) -> None:
            changed[numbers] = weight.data[numbers]

        try:
            yield restore
        finally:
            weight.tensor.data = before

    def rows(self, name: str, first: int, last: int) -> FloatArray:
        """Rows first..last-1 of a weight as the file has them, f32 [n, columns]."""
        weight = self._weight(name)
        return ggml.dequantize(weight.type_id, weight.data[first:last], last - first, weight.shape[1], self.threads)

    def kld(self, n_chunks: int | None = None, share: float = 1.0) -> NDArray[np.float64]:
        """KL divergence from the undisturbed model, nats, on the first `n_chunks` chunks: f64 [chunks, segments].

        A segment is the mean over one of SEGMENTS equal parts of a chunk. With a `share` below 1, only that share of
        each chunk is run; its segments are the first of those of the whole chunk, on the same tokens.
        """
        chunks = range(len(self.chunks[:n_chunks]))
        n_tokens = max(self._first + 1, round(share * len(self._positions)))
        return np.stack([self._segments(np.concatenate(list(self._by_token(chunk, n_tokens)))) for chunk in chunks])

    def kld_until(self, enough: Callable[[Sequence[float]], bool]) -> list[float]:
        """The same segment by segment, until there are enough of them: asked after each half of a chunk's."""
        found: list[float] = []
        half = self._first + (len(self._positions) - self._first) // 2
        for chunk in range(len(self.chunks)):
            for tokens in self._by_token(chunk, len(self._positions), cut=half):
                found += self._segments(tokens).tolist()
                if enough(found):
                    return found
        return found

    def _segments(self, by_token: NDArray[np.float64]) -> NDArray[np.float64]:
        length = max(1, len(self._positions) // SEGMENTS)
        return np.array([part.mean() for part in np.array_split(by_token, max(1, len(by_token) // length))])

    def _by_token(self, chunk: int, n_tokens: int, cut: int | None = None) -> Iterator[NDArray[np.float64]]:
        """KL divergence of each scored token among the first `n_tokens` of a chunk, those before `cut` first."""
        assert self._context is not None, "run_base comes first"
        whole, pending = len(self._positions) - self._first, []
        for first, logits in self._logits(self._context, self.chunks[chunk][:n_tokens], cut):
            base = _BaseRows(self._base_path, chunk * whole + first, self._model.n_vocab)
            divergences = self._pool.map(lambda rows, b=base, q=logits: _kld(b.read(rows), q[rows]), _parts(logits))
            pending += list(divergences)
            if self._first + first + len(logits) in (cut, n_tokens):
                yield np.concatenate(pending)
                pending = []

    def _logits(
        self, context: Context, chunk: NDArray[np.int32], cut: int | None = None
    ) -> Iterator[tuple[int, FloatArray]]:
        """Run a chunk batch by batch: (index of the first scored position, counted from the first, its logits).

        A batch ends at the position `cut`, if it is given.
        """
        context.clear()
        tokens = with_bos(self._model, chunk)
        ends = {*range(self._batch, len(tokens), self._batch), len(tokens)} | ({cut} if cut else set())
        for start, end in pairwise([0, *sorted(ends)]):
            positions = self._positions[start:end]
            scored = positions >= self._first
            logits = context.decode(tokens[positions], positions, scored)
            if scored.any():
                yield int(positions[scored][0]) - self._first, logits

    def _find_weight(self, node: GgmlTensor) -> None:
        source = node.src[0]
        if not source or source.contents.type not in _PLAIN_TYPES:
            return
        weight = source.contents
        name = weight.name.decode("utf-8", "replace")
        if name.endswith(".weight") and name not in self._weights:
            shape = (int(weight.ne[1] * weight.ne[2] * weight.ne[3]), int(weight.ne[0]))
            row_bytes = quant_types.get(weight.type).row_bytes(shape[1])
            memory = (ctypes.c_uint8 * (shape[0] * row_bytes)).from_address(weight.data)
            data = np.ndarray((shape[0], row_bytes), np.uint8, memoryview(memory))
            data.flags.writeable = False  # its pages are the file's
            self._weights[name] = _Weight(weight, weight.type, shape, data)

    def _weight(self, name: str) -> _Weight:
        if name not in self._weights:
            raise InputError(f"the text never reaches {name}: its sensitivity cannot be measured")
        return self._weights[name]


class _BaseRows:
    """Log-probabilities of the undisturbed model, read from where `run_base` wrote them."""

    def __init__(self, path: Path, first: int, n_vocab: int) -> None:
        self._path, self._first, self._n_vocab = path, first, n_vocab

    def read(self, rows: slice) -> FloatArray:
        """f32 [rows, n_vocab]."""
        count = rows.stop - rows.start
        offset = 4 * self._n_vocab * (self._first + rows.start)
        return np.fromfile(self._path, np.float32, count * self._n_vocab, offset=offset).reshape(count, self._n_vocab)


def _aligned(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """u8 of a shape, as ggml aligns its tensors."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size].reshape(shape)


def _parts(logits: FloatArray) -> Iterator[slice]:
    n, step = len(logits), min(_ROWS, max(1, _COMPARED // logits.shape[1]))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted: FloatArray = logits - logits.max(1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return shifted


def _kld(base_log_p: FloatArray, logits: FloatArray) -> NDArray[np.float64]:
    """KL(base || model) of each row."""
    difference = base_log_p - _log_softmax(logits)
    difference *= np.exp(base_log_p)
    by_row: NDArray[np.float64] = difference.sum(1, dtype=np.float64)
    return by_row
