"""Base log-probabilities on disk, in llama-perplexity's `--kl-divergence-base` format, readable and writable.

    8 bytes  "_logits_"
    int32    n_ctx, n_vocab, n_chunk
    int32    tokens [n_chunk, n_ctx]
    uint16   rows [n_chunk, n_scored, n_row]      n_scored = n_ctx - 1 - n_ctx // 2

A row is two float32 (scale, minimum) and n_vocab levels, padded to an even number: log p = scale * level + minimum.
Log-probs more than 16 nats below the largest become the minimum.
(llama.cpp tools/perplexity/perplexity.cpp, `log_softmax`.)
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.errors import InputError

MAGIC = b"_logits_"
HEADER_BYTES = len(MAGIC) + 3 * 4
LEVELS = 65535
RANGE_NATS = 16


@dataclass(frozen=True)
class LogitsShape:
    """The sizes that a file's header states, and what follows from them."""

    n_ctx: int
    n_vocab: int
    n_chunk: int

    @property
    def first(self) -> int:
        """The first position whose prediction is scored: the first half of a chunk is only context."""
        return self.n_ctx // 2

    @property
    def n_scored(self) -> int:
        return self.n_ctx - 1 - self.first

    @property
    def n_row(self) -> int:
        """uint16 per row."""
        return 2 * ((self.n_vocab + 1) // 2) + 4

    @property
    def chunk_bytes(self) -> int:
        return self.n_scored * self.n_row * 2

    @property
    def rows_offset(self) -> int:
        return HEADER_BYTES + 4 * self.n_chunk * self.n_ctx


class LogitsFile:
    """A complete file, open for reading. Raises InputError on a foreign or truncated one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not is_logits_file(self.path):
            raise InputError(f"{path}: not a base log-probability file of llama-perplexity")
        with self.path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            header = np.frombuffer(head, np.int32, offset=len(MAGIC)) if len(head) == HEADER_BYTES else np.zeros(3)
            if min(header) <= 0:
                raise InputError(f"{path}: damaged header; make the file again")
            self.shape = LogitsShape(*(int(n) for n in header))
            expected = self.shape.rows_offset + self.shape.n_chunk * self.shape.chunk_bytes
            size = self.path.stat().st_size
            if size != expected:
                raise InputError(f"{path}: {size} bytes, not the {expected} that its header announces")
            data = file.read(4 * self.shape.n_chunk * self.shape.n_ctx)
        self.tokens = np.frombuffer(data, np.int32).reshape(self.shape.n_chunk, self.shape.n_ctx)
        if self.tokens.min() < 0 or self.tokens.max() >= self.shape.n_vocab:
            raise InputError(
                f"{path}: holds tokens outside its vocabulary of {self.shape.n_vocab}; make the file again"
            )

    def rows(self, chunk: int, part: slice = slice(None)) -> NDArray[np.uint16]:
        """The rows of one chunk, or of a part of its scored positions: uint16 [n, n_row]."""
        shape = self.shape
        start, end, _ = part.indices(shape.n_scored)
        offset = shape.rows_offset + chunk * shape.chunk_bytes + 2 * start * shape.n_row
        count = (end - start) * shape.n_row
        return np.fromfile(self.path, np.uint16, count, offset=offset).reshape(end - start, shape.n_row)

    def targets(self, chunk: int) -> NDArray[np.int32]:
        """The tokens that the scored positions of a chunk must predict: int32 [n_scored]."""
        return self.tokens[chunk, self.shape.first + 1 :]

    def target_nll(self, chunk: int) -> NDArray[np.float32]:
        """-log p of the targets of one chunk, f32 [n_scored], without reading whole rows."""
        shape = self.shape
        offset = shape.rows_offset + chunk * shape.chunk_bytes
        rows = np.memmap(self.path, np.uint16, "r", offset, (shape.n_scored, shape.n_row))
        scale, minimum = scale_and_minimum(rows)
        level = rows[np.arange(shape.n_scored), 4 + self.targets(chunk)]
        return -(scale * level + minimum)


class LogitsWriter:
    """Writes row after row to `<path>.partial`; `finish` gives the file its name.

    An earlier, interrupted file of the same shape and tokens is resumed: `n_done` chunks, at most `n_trusted`, are
    there already.
    """

    def __init__(self, path: str | Path, shape: LogitsShape, tokens: NDArray[np.int32], n_trusted: int = 0) -> None:
        self.path = Path(path)
        self.shape = shape
        self.n_done = 0
        self._partial = files.partial_path(self.path)
        header = MAGIC + np.array([shape.n_ctx, shape.n_vocab, shape.n_chunk], np.int32).tobytes()
        head = header + np.ascontiguousarray(tokens, np.int32).tobytes()
        self._file: BinaryIO = self._partial.open("r+b" if self._partial.exists() else "w+b")
        if self._file.read(len(head)) == head:
            rest = self._partial.stat().st_size - len(head)
            self.n_done = min(rest // shape.chunk_bytes, shape.n_chunk, n_trusted)
        else:
            self._file.seek(0)
            self._file.write(head)
        self._file.seek(len(head) + self.n_done * shape.chunk_bytes)
        self._file.truncate()

    def append(self, rows: NDArray[np.uint16]) -> None:
        """Add the next rows, uint16 [n, n_row]. Raises InputError if the disk is full; finished chunks stay."""
        try:
            self._file.write(np.ascontiguousarray(rows).data)
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"{self._partial}: cannot be written ({error}); free some space and run again, finished chunks are kept"
            ) from error

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        files.sync(self._partial)
        os.replace(self._partial, self.path)
        files.sync(self.path.parent)

    def close(self) -> None:
        self._file.close()


def is_logits_file(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def scale_and_minimum(rows: NDArray[np.uint16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two float32 [n] that open each of the rows uint16 [n, n_row]."""
    head = np.ascontiguousarray(rows[:, :4]).view(np.float32)
    return head[:, 0], head[:, 1]
