"""A base on one text: its log-probabilities, computed once and cached, and the scores of models against them.

The cache holds, for each (base, text, context, chunks, metrics version), one folder: the base's log-probabilities in
llama-perplexity's format, and the token scores of each model that was compared. Deleting it loses nothing but time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.chunks import Tokenizer, read_text, text_chunks
from gguf_golf.errors import InputError
from gguf_golf.evaluate import engine, perplexity, steps
from gguf_golf.evaluate.engine import Peer, WithBos
from gguf_golf.evaluate.logits_file import LogitsFile, is_logits_file
from gguf_golf.files import locked
from gguf_golf.models.hashing import file_sha256
from gguf_golf.runtime.cache import make_room, mark_used
from gguf_golf.runtime.header import GgufHeader
from gguf_golf.runtime.session import LoadedModel, check_gguf

# raise it whenever the numbers in the cache change their meaning.
# 2: constant logits are an error
METRICS_VERSION = 2


@dataclass(frozen=True)
class TextSettings:
    """A text and how it is cut: a context of `n_ctx` tokens, the first `n_chunks` chunks (all if None)."""

    file: Path
    n_ctx: int = 512
    n_chunks: int | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        return self.name or self.file.stem

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.label,
            "file": self.file.name,
            "sha256": file_sha256(self.file),
            "bytes": self.file.stat().st_size,
            "n_ctx": self.n_ctx,
            "n_chunks": self.n_chunks,
        }


class BaseOnText:
    """The base's log-probabilities on one text, from the cache or computed now, and what is compared to them.

    `nll` is -log p of the targets under the base, f32 [n_chunk, n_scored], nats; `text_bytes` the size of their text.
    """

    def __init__(self, base: Path, text: TextSettings, quants: Sequence[Path], cache: Path, threads: int) -> None:
        self.text = text
        self.foreign = is_logits_file(base)
        key = [str(METRICS_VERSION), file_sha256(base), hashlib.sha256(read_text(text.file)).hexdigest()]
        if self.foreign:
            if not quants:
                raise InputError(f"{base}: log-probabilities alone; name a model to compare with them")
            self.logits = LogitsFile(base)
            self.nll = np.stack([self.logits.target_nll(chunk) for chunk in range(self.logits.shape.n_chunk)])
            tokenizer = quants[0]
        else:
            check_gguf(base)
            key += [str(text.n_ctx), str(text.n_chunks)]
            tokenizer = base
        self.folder = cache / hashlib.sha256(" ".join(key).encode()).hexdigest()[:20]
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.foreign:
            self._compute(base, threads)
        with LoadedModel(tokenizer, vocab_only=True) as model:
            self.text_bytes = perplexity.scored_bytes(model, self.logits)
            self._bos = model.bos if model.add_bos else None
        self._digest = None if self.foreign else tokenizer_digest(base)

    def compare(
        self, path: Path, threads: int, n_ubatch: int = perplexity.UBATCH, *, as_stored: bool = False
    ) -> NDArray[np.void]:
        """TOKEN_SCORE [n_chunk, n_scored] of a model; `nll_base` is exact where this class computed the base.

        `as_stored` keeps llama.cpp from repacking its tensors. Raises InputError if the model's tokenizer cuts the text
        differently from the base's.
        """
        cached = self.folder / f"{file_sha256(path)}-{n_ubatch}{'-stored' if as_stored else ''}.scores"
        with locked(cached, wait=True), steps.opened(path, in_place=as_stored) as model:
            self._check_tokens(model)
            run = steps.scores_run(model, self.logits, threads, n_ubatch, as_stored=as_stored)
            scores = perplexity.score(model, self.logits, cached, run)
        scores["nll_base"] = self.nll
        return scores

    def judge(self, peer: Peer, threads: int) -> NDArray[np.void]:
        """The same of a model in another engine. Raises InputError as `compare` does, and as `engine.score`."""
        self._require_same(peer.name, WithBos(peer.engine, self._bos))
        scores = engine.score(peer, self.logits, self._bos, threads)
        scores["nll_base"] = self.nll
        return scores

    def _compute(self, base: Path, threads: int) -> None:
        path, nll_path = self.folder / "base.logits", self.folder / "base.nll"
        with locked(path, wait=True):
            if not _is_whole(path, nll_path):
                path.unlink(missing_ok=True)
                with steps.opened(base) as model:
                    chunks = text_chunks(model, self.text.file, self.text.n_ctx, self.text.n_chunks)
                    perplexity.write_base(model, chunks, path, nll_path, steps.base_run(model, chunks, threads))
                make_room()
            mark_used(path)
            self.logits = LogitsFile(path)
            self.nll = np.fromfile(nll_path, np.float32).reshape(self.logits.shape.n_chunk, -1)

    def _check_tokens(self, model: LoadedModel) -> None:
        if tokenizer_digest(model.path) == self._digest:
            return
        self._require_same(str(model.path), model, model.n_vocab)

    def _require_same(self, name: str, tokenizer: Tokenizer, n_vocab: int | None = None) -> None:
        """Raise InputError unless the text has the base's tokens, and the vocabulary its size if it is known."""
        shape = self.logits.shape
        if n_vocab in (None, shape.n_vocab):
            chunks = text_chunks(tokenizer, self.text.file, shape.n_ctx, shape.n_chunk)
            if np.array_equal(chunks, self.logits.tokens):
                return
        what = "the text that the log-probabilities were made from" if self.foreign else "the base"
        sizes = "" if n_vocab is None else f" (vocabulary of {n_vocab})"
        raise InputError(
            f"{name}: its tokens of {self.text.file}{sizes} are not those of {what} "
            f"(vocabulary of {shape.n_vocab}); compare only files of one model, on one text"
        )


def _is_whole(path: Path, nll_path: Path) -> bool:
    """Whether the cache has a base that no crash has cut."""
    try:
        shape = LogitsFile(path).shape
        return nll_path.stat().st_size == 4 * shape.n_chunk * shape.n_scored
    except (InputError, OSError):
        return False


def tokenizer_digest(path: Path) -> str:
    with GgufHeader(path) as header:
        return header.tokenizer_digest()
