"""A text cut into chunks of tokens exactly as llama-perplexity and llama-imatrix cut it."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.runtime.session import LoadedModel

GENEROUS_CHARACTERS = 16  # of text per token: more than twice what tokens of plain text take


class Tokenizer(Protocol):
    """What cuts a text into tokens: a loaded model, or another engine's."""

    def tokenize(self, text: str, /) -> NDArray[np.int32]:
        """Token ids int32 [n], with BOS in front where the model wants it."""
        ...


def read_text(path: str | Path) -> bytes:
    """The bytes of a text file, less one final newline (as llama.cpp's `--file` drops it).

    Raises InputError if the file is absent, empty, or not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    if not data.strip():
        raise InputError(f"{path}: the text is empty")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    return data.removesuffix(b"\n")


def text_chunks(model: Tokenizer, path: str | Path, n_ctx: int, n_chunks: int | None = None) -> NDArray[np.int32]:
    """Tokens of a text file, int32 [chunks, n_ctx]: consecutive, without overlap, the rest dropped.

    Only the first `n_chunks` are kept, or all if there are fewer. Position 0 still holds the text's own token: see
    `with_bos`. Raises InputError if the text is shorter than one chunk.
    """
    if n_ctx < 4:
        raise InputError(f"a context of {n_ctx} tokens is too short to measure anything; use 512")
    if n_chunks is not None and n_chunks < 1:
        raise InputError(f"{n_chunks} chunks leave nothing to measure; ask for 1 or more")
    tokens = _first_tokens(model, read_text(path).decode("utf-8"), None if n_chunks is None else n_chunks * n_ctx)
    available = len(tokens) // n_ctx
    if available == 0:
        raise InputError(
            f"{path}: the text has {len(tokens)} tokens, less than one chunk of {n_ctx}; "
            "use a longer text or a smaller --ctx"
        )
    kept = available if n_chunks is None else min(n_chunks, available)
    return tokens[: kept * n_ctx].reshape(kept, n_ctx)


def _first_tokens(model: Tokenizer, text: str, needed: int | None) -> NDArray[np.int32]:
    """Tokens of the text, or of a beginning of whole lines with at least twice those `needed`.

    A whole corpus is not tokenized for a few chunks; text that far behind them does not change their tokens.
    """
    if needed is not None:
        end = text.find("\n", needed * GENEROUS_CHARACTERS)
        if end > 0 and len(tokens := model.tokenize(text[:end])) >= 2 * needed:
            return tokens
    return model.tokenize(text)


def with_bos(model: LoadedModel, chunk: NDArray[np.int32]) -> NDArray[np.int32]:
    """The chunk as the model sees it: BOS in place of its first token, where the model wants BOS."""
    if not model.add_bos:
        return chunk
    seen = chunk.copy()
    seen[0] = model.bos
    return seen
