"""Run models over the chunks of a text, as llama-perplexity does: the base once, then any number of models against it.

Chunks are independent and decoded one at a time, so an interrupted run resumes after its last finished chunk with the
same numbers. The first half of each chunk is context only; BOS replaces its first token where the model wants one. The
scored half is decoded in one batch, or in several where the vocabulary is so large that its logits would fill memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.chunks import with_bos
from gguf_golf.errors import DataError, InputError
from gguf_golf.evaluate.divergence import TOKEN_SCORE, Scorer
from gguf_golf.evaluate.logits_file import LogitsFile, LogitsShape, LogitsWriter
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import Context, LoadedModel

UBATCH = 512  # llama-perplexity's own
LOGITS_PER_BATCH = 1 << 24  # 64 MiB; up to 65,000 tokens of vocabulary, a chunk of 512 tokens is one batch
ROWS = 64  # tokens from which on a batch's rounding does not depend on its size

BaseRows = tuple[NDArray[np.uint16], NDArray[np.float32]]
RunBase = Callable[[range], Iterator[BaseRows]]
RunScores = Callable[[range], Iterator[NDArray[np.void]]]


def write_base(model: LoadedModel, chunks: NDArray[np.int32], path: Path, nll_path: Path, run: RunBase) -> None:
    """Write the base's log-probabilities over chunks int32 [n_chunk, n_ctx], or finish a file that was begun.

    `nll_path` receives the exact -log p of the targets, f32 [n_chunk, n_scored]. `run` makes the rows of a range of
    chunks, as `base_rows` does.
    """
    shape = LogitsShape(chunks.shape[1], model.n_vocab, len(chunks))
    nll_bytes = 4 * shape.n_scored
    nll_done = nll_path.stat().st_size // nll_bytes if nll_path.exists() else 0
    writer = LogitsWriter(path, shape, chunks, n_trusted=nll_done)
    try:
        with nll_path.open("r+b" if nll_path.exists() else "wb") as nll_file:
            nll_file.truncate(writer.n_done * nll_bytes)
            nll_file.seek(writer.n_done * nll_bytes)
            todo = range(writer.n_done, shape.n_chunk)
            with _progress(todo, shape.n_chunk, model) as bar:
                for rows, nll in run(todo):
                    nll_file.write(nll.tobytes())
                    nll_file.flush()
                    writer.append(rows)
                    bar.update(len(nll) / shape.n_scored)
        writer.finish()
    finally:
        writer.close()


def base_rows(model: LoadedModel, chunks: NDArray[np.int32], todo: range, threads: int) -> Iterator[BaseRows]:
    """Rows uint16 [n, n_row] of a `LogitsFile` and -log p of the targets f32 [n], chunk by chunk or part of a chunk.

    `chunks` int32 [n_chunk, n_ctx] are all of the text's. Raises DataError on logits that are NaN or Inf.
    """
    shape = LogitsShape(chunks.shape[1], model.n_vocab, len(chunks))
    with _context(model, shape, UBATCH, threads) as context, Scorer(threads) as scorer:
        for chunk in todo:
            for part, logits in _chunk_logits(context, chunks[chunk], shape):
                with _naming(model, chunk):
                    yield scorer.encode(logits, chunks[chunk, shape.first + 1 :][part])


def score(model: LoadedModel, base: LogitsFile, path: Path, run: RunScores) -> NDArray[np.void]:
    """TOKEN_SCORE [n_chunk, n_scored] of a model against the base.

    `path` keeps the scores of finished chunks; chunks that it holds already are not run again. `run` makes those of a
    range of chunks, as `token_scores` does. Raises InputError if the vocabularies differ in size.
    """
    shape = base.shape
    if model.n_vocab != shape.n_vocab:
        raise InputError(
            f"{model.path}: its vocabulary has {model.n_vocab} tokens, the base's {shape.n_vocab}; "
            "only files of one and the same model can be compared"
        )
    chunk_bytes = shape.n_scored * TOKEN_SCORE.itemsize
    n_done = path.stat().st_size // chunk_bytes if path.exists() else 0
    if n_done < shape.n_chunk:
        todo = range(n_done, shape.n_chunk)
        with path.open("r+b" if path.exists() else "wb") as file, _progress(todo, shape.n_chunk, model) as bar:
            file.truncate(n_done * chunk_bytes)
            file.seek(n_done * chunk_bytes)
            for scores in run(todo):
                file.write(scores.tobytes())
                file.flush()
                bar.update(len(scores) / shape.n_scored)
    return np.fromfile(path, TOKEN_SCORE, shape.n_chunk * shape.n_scored).reshape(shape.n_chunk, shape.n_scored)


def token_scores(
    model: LoadedModel, base: LogitsFile, todo: range, threads: int, n_ubatch: int = UBATCH
) -> Iterator[NDArray[np.void]]:
    """TOKEN_SCORE [n], chunk by chunk or part of a chunk. Raises DataError on logits that are NaN or Inf."""
    with _context(model, base.shape, n_ubatch, threads) as context, Scorer(threads) as scorer:
        for chunk in todo:
            for part, logits in _chunk_logits(context, base.tokens[chunk], base.shape):
                with _naming(model, chunk):
                    yield scorer.compare(logits, base.targets(chunk)[part], base.rows(chunk, part))


def scored_bytes(model: LoadedModel, base: LogitsFile) -> int:
    """Bytes of text that the scored tokens stand for: the denominator of bits per byte."""
    tokens, counts = np.unique(base.tokens[:, base.shape.first + 1 :], return_counts=True)
    return sum(len(model.piece(token)) * int(count) for token, count in zip(tokens, counts, strict=True))


def _context(model: LoadedModel, shape: LogitsShape, n_ubatch: int, threads: int) -> Context:
    return model.context(
        shape.n_ctx, n_ubatch=n_ubatch, n_outputs_max=max(len(part) for part in _parts(shape)), threads=threads
    )


def _parts(shape: LogitsShape) -> list[range]:
    """The second half of a chunk, in parts of not much more than LOGITS_PER_BATCH logits.

    Multiples of ROWS, and never fewer: llama.cpp computes smaller batches in another way, with other rounding.
    """
    size = max(ROWS, LOGITS_PER_BATCH // shape.n_vocab // ROWS * ROWS)
    starts = list(range(shape.first, shape.n_ctx, size))
    if len(starts) > 1 and shape.n_ctx - starts[-1] < ROWS:
        starts.pop()
    return [range(start, end) for start, end in zip(starts, [*starts[1:], shape.n_ctx], strict=True)]


def _chunk_logits(
    context: Context, chunk: NDArray[np.int32], shape: LogitsShape
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Parts of a chunk's scored positions, and their logits f32 [n, n_vocab] (a view that the next one overwrites)."""
    seen, first, parts = with_bos(context.model, chunk), shape.first, _parts(shape)
    context.clear()
    if len(parts) > 1:
        context.decode(seen[:first], np.arange(first, dtype=np.int32), np.zeros(first, np.bool_))
    for part in parts:
        positions = np.arange(part.start if len(parts) > 1 else 0, part.stop, dtype=np.int32)
        scored = (positions >= part.start) & (positions < shape.n_ctx - 1)
        yield slice(part.start - first, part.stop - first), context.decode(seen[positions], positions, scored)


def _progress(todo: range, n_chunk: int, model: LoadedModel) -> ProgressBar:
    return ProgressBar(initial=todo.start, total=n_chunk, desc=model.path.name, unit="chunk")


@contextmanager
def _naming(model: LoadedModel, chunk: int) -> Iterator[None]:
    """Say in which file and chunk the numbers went wrong."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{model.path}, chunk {chunk + 1}: {error}") from error
