"""A model and its contexts, loaded by the bindings: tokens in, logits out as numpy arrays.

The thin layer over `llama_cpp`'s ctypes that calibration, evaluation and generation share. It holds no metric and no
sampling of its own.
"""

import ctypes
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import DataError, InputError, printable
from gguf_golf.formats.foreign import foreign_type
from gguf_golf.runtime import library, rpc
from gguf_golf.runtime.abi import AbortCallback
from gguf_golf.threads import resolve

GGUF_MAGIC = b"GGUF"

_TOO_MANY = -(1 << 31)  # INT32_MIN, of llama_tokenize

GAVE_UP = 3
"""Exit status of a process that llama.cpp cannot go on in."""

_log = logging.getLogger("llama.cpp")
_log_tail: deque[str] = deque(maxlen=40)
_log_listeners: list[list[str]] = []
_kept_alive: list[Any] = []  # ctypes callbacks that C still points to
_latest: deque[Path] = deque(maxlen=1)  # the file that was loaded last


@lru_cache(maxsize=1)
def bindings() -> ModuleType:
    """The bindings with the backend started and llama.cpp's log kept aside instead of printed."""
    llama_cpp = library.load()

    def keep(_level: int, text: bytes, _user_data: Any) -> None:
        line = text.decode("utf-8", "replace")
        _log_tail.append(line)
        _log.debug("%s", line.rstrip())
        for listener in _log_listeners:
            listener.append(line)

    log, abort = llama_cpp.llama_log_callback(keep), AbortCallback(_give_up)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    library.libggml().ggml_set_abort_callback(abort)
    _kept_alive.extend((log, abort))
    llama_cpp.llama_backend_init()
    rpc.connect()
    return llama_cpp


def _give_up(reason: bytes) -> None:
    """End the process, which ggml would do by a signal with a debugger's output: it cannot go on after an assertion."""
    words = re.sub(r"^\S*/", "", reason.decode("utf-8", "replace"))
    file = f"{_latest[0]}: " if _latest else ""
    why = "the file is damaged, or of a kind that this runtime does not know"
    if "rpc" in words.lower():
        why = f"a server of {', '.join(rpc.endpoints())} is lost or out of memory: start it again, and run this again"
    what = f"{file}llama.cpp cannot go on ({words}); {why}"
    sys.stderr.write(f"\nerror: {printable(what)}\n")
    sys.stderr.flush()
    os._exit(GAVE_UP)


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Everything that llama.cpp logs within the block, piece by piece: pieces are not always whole lines."""
    pieces: list[str] = []
    _log_listeners.append(pieces)
    try:
        yield pieces
    finally:
        _log_listeners.remove(pieces)


def _last_log_line() -> str:
    lines = [line.strip() for line in "".join(_log_tail).splitlines() if line.strip(" .")]
    telling = [line for line in lines if "error" in line.lower() or "fail" in line.lower()] or lines
    return telling[0] if telling else "llama.cpp gave no reason"


class LoadedModel:
    """A GGUF file opened by llama.cpp.

    `vocab_only=True` loads the tokenizer alone, `without_weights=True` all but the tensors' data; `mapped=True` leaves
    the weights in the mapped file, where the system can take their memory back; `in_place=True` puts them into writable
    host memory, in the file's own layout, where their data may be exchanged. Raises InputError if the file is absent,
    no GGUF, or cannot be loaded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        vocab_only: bool = False,
        in_place: bool = False,
        without_weights: bool = False,
        mapped: bool = False,
    ) -> None:
        self.path = Path(path)
        check_gguf(self.path)
        llama = bindings()
        params = llama.llama_model_default_params()
        params.vocab_only = vocab_only
        if in_place or mapped:
            params.use_extra_bufts = False  # they repack weights into memory of their own
            params.n_gpu_layers = 0
        if in_place:
            params.load_mode = llama.LLAMA_LOAD_MODE_NONE
        if without_weights:
            params.load_mode = llama.LLAMA_LOAD_MODE_NONE
            params.no_alloc = True
        _log_tail.clear()
        _latest.append(self.path)
        self._model = llama.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self._model:
            if foreign := foreign_type(self.path):
                raise InputError(foreign)
            raise InputError(
                f"{self.path}: llama.cpp cannot load this file ({_last_log_line()}); "
                "is it complete, and of an architecture that this runtime knows?"
            )
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.n_vocab: int = llama.llama_vocab_n_tokens(self._vocab)
        self.add_bos: bool = llama.llama_vocab_get_add_bos(self._vocab)
        self.bos: int = llama.llama_vocab_bos(self._vocab)
        self.eos: int = llama.llama_vocab_eos(self._vocab)
        self.text_start: int = self.bos if self.bos >= 0 else self.eos
        self.n_ctx_train: int = llama.llama_model_n_ctx_train(self._model)
        self.n_params: int = llama.llama_model_n_params(self._model)
        self.tensor_bytes: int = llama.llama_model_size(self._model)

    @property
    def bpw(self) -> float:
        """Bits per weight: all tensor data over all parameters, norms and embeddings included."""
        return 8 * self.tensor_bytes / self.n_params

    def tokenize(
        self, text: str | bytes, *, add_special: bool | None = None, parse_special: bool = False
    ) -> NDArray[np.int32]:
        """Token ids int32 [n].

        `parse_special` reads the special tokens that the text spells out, as a rendered chat does. `add_special` adds
        BOS and EOS where the model asks for them; by default only to a text that cannot bring its own.
        """
        add_special = not parse_special if add_special is None else add_special
        data = text.encode("utf-8") if isinstance(text, str) else text
        capacity = len(data) + 8
        while True:
            tokens = np.empty(capacity, np.int32)
            pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            n = bindings().llama_tokenize(self._vocab, data, len(data), pointer, capacity, add_special, parse_special)
            if n >= 0:
                return tokens[:n].copy()
            if n == _TOO_MANY:
                raise InputError(f"{self.path}: its tokenizer cannot tokenize the text ({_last_log_line()})")
            capacity = -n  # a vocabulary without a piece for the space makes three tokens of it

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token's text (may be part of a UTF-8 character); special tokens only if asked for."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = bindings().llama_token_to_piece(self._vocab, int(token), buffer, size, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def is_end_of_generation(self, token: int) -> bool:
        return bool(bindings().llama_vocab_is_eog(self._vocab, token))

    def chat_template(self) -> str | None:
        """The Jinja chat template that the file carries, if any."""
        template = bindings().llama_model_chat_template(self._model, None)
        return template.decode("utf-8") if template else None

    def metadata(self, key: str) -> str | None:
        """A metadata value as text, None if the key is absent."""
        buffer = ctypes.create_string_buffer(1 << 16)
        n = bindings().llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if n >= 0 else None

    def context(
        self,
        n_ctx: int,
        *,
        n_batch: int | None = None,
        n_ubatch: int = 512,
        n_seq_max: int = 1,
        n_outputs_max: int | None = None,
        threads: int | None = None,
        cb_eval: Callable[[Any, bool, Any], bool] | None = None,
    ) -> "Context":
        """A context of `n_ctx` positions in all, shared by up to `n_seq_max` sequences.

        `n_outputs_max` is the largest number of tokens of a batch that ask for logits, if not all: memory is reserved
        for their logits.
        """
        n_batch = n_batch or n_ctx
        return Context(self, n_ctx, n_batch, n_ubatch, n_seq_max, n_outputs_max or n_batch, resolve(threads), cb_eval)

    def close(self) -> None:
        if self._model:
            bindings().llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> "LoadedModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Context:
    """One llama_context: a KV cache and the logits of its latest batch."""

    def __init__(
        self,
        model: LoadedModel,
        n_ctx: int,
        n_batch: int,
        n_ubatch: int,
        n_seq_max: int,
        n_outputs_max: int,
        threads: int,
        cb_eval: Callable[[Any, bool, Any], bool] | None,
    ) -> None:
        llama = bindings()
        self.model = model
        self.n_batch = n_batch
        self.n_seq_max = n_seq_max
        self.n_outputs_max = n_outputs_max
        params = llama.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = n_batch
        params.n_ubatch = min(n_ubatch, n_batch)
        params.n_seq_max = n_seq_max
        params.n_outputs_max = n_outputs_max
        params.n_outputs_max_per_seq = 0  # a sequence may have all of them
        params.kv_unified = n_seq_max > 1  # sequences share their prefix's cells
        params.n_threads = threads
        params.n_threads_batch = threads
        if cb_eval is not None:
            self._callback = llama.ggml_backend_sched_eval_callback(cb_eval)  # must outlive the context
            params.cb_eval = self._callback
        _log_tail.clear()
        self._ctx = llama.llama_init_from_model(model._model, params)
        if not self._ctx:
            raise InputError(f"{model.path}: cannot make a context of {n_ctx} tokens ({_last_log_line()})")
        self._memory = llama.llama_get_memory(self._ctx)
        self._batch = llama.llama_batch_init(n_batch, 0, n_seq_max)
        batch = self._batch
        self._token = np.ctypeslib.as_array(batch.token, (n_batch,))
        self._pos = np.ctypeslib.as_array(batch.pos, (n_batch,))
        self._n_seq = np.ctypeslib.as_array(batch.n_seq_id, (n_batch,))
        self._output = np.ctypeslib.as_array(batch.logits, (n_batch,))

    def decode(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        outputs: NDArray[np.bool_],
        sequences: Sequence[Sequence[int]] | None = None,
    ) -> NDArray[np.float32]:
        """Run one batch of n <= n_batch tokens; return the logits f32 [outputs.sum(), n_vocab] in batch order.

        `sequences` lists, for each token, the sequences it belongs to (sequence 0 when left out). The result is a view
        of llama.cpp's own buffer: copy what must outlive the next call. Raises DataError if llama.cpp cannot decode.
        """
        llama = bindings()
        n = len(tokens)
        self._token[:n] = tokens
        self._pos[:n] = positions
        self._output[:n] = outputs
        seq_id = self._batch.seq_id
        if sequences is None:
            self._n_seq[:n] = 1
            for i in range(n):
                seq_id[i][0] = 0
        else:
            for i, ids in enumerate(sequences):
                self._n_seq[i] = len(ids)
                for j, seq in enumerate(ids):
                    seq_id[i][j] = seq
        self._batch.n_tokens = n
        status = llama.llama_decode(self._ctx, self._batch)
        if status != 0:
            raise DataError(f"{self.model.path}: llama_decode failed with status {status} ({_last_log_line()})")
        n_outputs = int(np.count_nonzero(outputs))
        if n_outputs == 0:
            return np.empty((0, self.model.n_vocab), np.float32)
        return np.ctypeslib.as_array(llama.llama_get_logits(self._ctx), (n_outputs, self.model.n_vocab))

    def clear(self) -> None:
        """Forget all sequences."""
        bindings().llama_memory_clear(self._memory, True)

    def forget(self, sequence: int, start: int) -> bool:
        """Drop positions >= start of one sequence from the KV cache; False where the architecture cannot."""
        return bool(bindings().llama_memory_seq_rm(self._memory, sequence, start, -1))

    def copy_sequence(self, source: int, target: int) -> None:
        """Make `target` share the cells of `source`."""
        bindings().llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def close(self) -> None:
        if self._ctx:
            bindings().llama_batch_free(self._batch)
            bindings().llama_free(self._ctx)
            self._ctx = None

    def __enter__(self) -> "Context":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_repacked(path: Path) -> bool:
    """Whether llama.cpp computes with some tensors of a file in another layout than the file's, with other rounding."""
    with captured_log() as log:
        LoadedModel(path, without_weights=True).close()
    # TCQ's own buffers, CPU_TCQ_REPACK, are not meant: with many columns their products are those of the file's layout
    return "CPU_REPACK model buffer size" in "".join(log)


def check_gguf(path: Path) -> None:
    """Raise InputError, in words that name the fix, unless `path` is a file that starts like a GGUF."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != GGUF_MAGIC:
        raise InputError(f"{path}: not a GGUF file (it starts with {magic!r}); convert it first: gguf-golf convert")
