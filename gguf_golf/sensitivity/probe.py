"""A running model whose weights can be exchanged in memory: the KL divergence that an error in one tensor causes.

No file is written: a tensor's data in llama.cpp's own memory is overwritten, the text runs, the data is put back.
"""

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import types
from gguf_golf.runtime import ggml
from gguf_golf.runtime.abi import GgmlTensor
from gguf_golf.runtime.session import Context, LoadedModel
from gguf_golf.threads import resolve

FloatArray = NDArray[np.float32]

_PLAIN_TYPES = {t.id: t.name for t in types.ALL.values() if t.holds_weights and not t.is_quantized}
_ROWS = 64  # positions whose probabilities are compared at a time: bounds memory for large vocabularies


@dataclass(frozen=True)
class _Weight:
    """A weight in llama.cpp's memory: ggml type, NumPy shape [n_rows, n_cols], and its bytes."""

    type_id: int
    shape: tuple[int, int]
    data: NDArray[np.uint8]


class Probe:
    """A GGUF of plain numbers (F32, F16, BF16) on the first chunks of a text, ready to be disturbed.

    Use as a context manager. Everything is scored that has at least a quarter of the context before it. Raises
    InputError for a text shorter than one chunk.
    """

    def __init__(self, path: Path, text: Path, n_ctx: int, n_chunks: int, scratch: Path, threads: int | None) -> None:
        self.threads = resolve(threads)
        self._model = LoadedModel(path, in_place=True)
        self.chunks = text_chunks(self._model, text, n_ctx, n_chunks)
        self._positions = np.arange(n_ctx, dtype=np.int32)
        self._scored = self._positions >= n_ctx // 4
        self._weights: dict[str, _Weight] = {}
        self._pool = ThreadPoolExecutor(self.threads)
        self._context: Context | None = None
        self._base_path = scratch
        self._base: NDArray[np.float32] | None = None

    def __enter__(self) -> "Probe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if self._context is not None:
            self._context.close()
        self._model.close()
        self._base = None
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
            except Exception as raised:  # C cannot pass an exception on
                error = error or raised
                return False

        n_scored = int(self._scored.sum())
        self._base = np.memmap(
            self._base_path, np.float32, "w+", shape=(len(self.chunks), n_scored, self._model.n_vocab)
        )
        with self._model.context(len(self._positions), threads=self.threads, cb_eval=callback) as context:
            for chunk_index, chunk in enumerate(self.chunks):
                try:
                    self._base[chunk_index] = _log_softmax(self._logits(context, chunk))
                except DataError as failed:
                    raise error or failed from None
        self._context = self._model.context(len(self._positions), threads=self.threads)

    @property
    def weights(self) -> dict[str, tuple[int, int]]:
        """The weights that `disturbed` can exchange, with their shapes [rows, columns]."""
        return {name: weight.shape for name, weight in self._weights.items()}

    @contextmanager
    def disturbed(self, name: str, rows: FloatArray, first_row: int = 0) -> Iterator[None]:
        """Within the block, rows first_row.. of the named weight are `rows` f32 [n, columns]."""
        weight = self._weight(name)
        new = ggml.quantize(weight.type_id, rows, threads=self.threads)
        place = weight.data[first_row : first_row + len(rows)]
        kept = place.copy()
        place[:] = new
        try:
            yield
        finally:
            place[:] = kept

    def rows(self, name: str, first: int, last: int) -> FloatArray:
        """Rows first..last-1 of a weight as they are now, f32 [n, columns]."""
        weight = self._weight(name)
        return ggml.dequantize(weight.type_id, weight.data[first:last], last - first, weight.shape[1], self.threads)

    def kld(self, n_chunks: int | None = None) -> NDArray[np.float64]:
        """Mean KL divergence from the undisturbed model, nats, of each of the first `n_chunks` chunks: f64 [n]."""
        assert self._base is not None and self._context is not None, "run_base comes first"
        chunks = self.chunks[:n_chunks]
        result = np.empty(len(chunks))
        for index, chunk in enumerate(chunks):
            logits, base = self._logits(self._context, chunk), self._base[index]
            parts = [slice(start, start + _ROWS) for start in range(0, len(logits), _ROWS)]
            result[index] = sum(self._pool.map(lambda p, b=base, q=logits: _kld_sum(b[p], q[p]), parts)) / len(logits)
        return result

    def _logits(self, context: Context, chunk: NDArray[np.int32]) -> FloatArray:
        context.clear()
        return context.decode(with_bos(self._model, chunk), self._positions, self._scored)

    def _find_weight(self, node: GgmlTensor) -> None:
        source = node.src[0]
        if not source or source.contents.type not in _PLAIN_TYPES:
            return
        weight = source.contents
        name = weight.name.decode("utf-8", "replace")
        if name.endswith(".weight") and name not in self._weights:
            shape = (int(weight.ne[1] * weight.ne[2] * weight.ne[3]), int(weight.ne[0]))
            row_bytes = types.get(weight.type).row_bytes(shape[1])
            memory = (ctypes.c_uint8 * (shape[0] * row_bytes)).from_address(weight.data)
            self._weights[name] = _Weight(
                weight.type, shape, np.ndarray((shape[0], row_bytes), np.uint8, memoryview(memory))
            )

    def _weight(self, name: str) -> _Weight:
        if name not in self._weights:
            raise InputError(f"the text never reaches {name}: its sensitivity cannot be measured")
        return self._weights[name]


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted: FloatArray = logits - logits.max(1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return shifted


def _kld_sum(base_log_p: FloatArray, logits: FloatArray) -> float:
    """Sum over rows of KL(base || model)."""
    difference = base_log_p - _log_softmax(logits)
    difference *= np.exp(base_log_p)
    return float(difference.sum(dtype=np.float64))
