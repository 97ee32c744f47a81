"""What is trained on: chunks of tokens of text files, or text that the model itself writes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.errors import InputError
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import LoadedModel

HELD_OUT_TOKENS = 8192
_HELD_OUT_SHARE = 8  # at most one chunk in so many
_SAMPLED_AT_ONCE = 256


@dataclass(frozen=True)
class Tokens:
    """Chunks int32 [n, n_ctx] to train on and, never trained on, to decide on; `source` names where they are from."""

    train: NDArray[np.int32]
    held_out: NDArray[np.int32]
    source: str

    @property
    def sha256(self) -> str:
        """Of all tokens."""
        return hashlib.sha256(self.train.tobytes() + self.held_out.tobytes()).hexdigest()


def from_files(gguf_path: Path, texts: Sequence[Path], n_ctx: int) -> Tokens:
    """All chunks of the texts, tokenized as llama.cpp does; chunks spread evenly over each text are held out.

    Raises InputError for texts that are too short.
    """
    with LoadedModel(gguf_path, vocab_only=True) as model:
        every = [np.stack([with_bos(model, chunk) for chunk in text_chunks(model, text, n_ctx)]) for text in texts]
    chunks = np.concatenate(every)
    return _split(chunks, ", ".join(text.name for text in texts))


def sampled(model: Any, start: int, n_chunks: int, n_ctx: int, *, seed: int, device: str) -> Tokens:
    """`n_chunks` chunks and those held out that a transformers model writes by itself, at temperature 1.

    `start` is the first token of each. The same seed gives the same tokens on the same device.
    """
    n = n_chunks + max(1, min(HELD_OUT_TOKENS // n_ctx, n_chunks // _HELD_OUT_SHARE))
    # no end of text: what would end one goes on as the next text, as in the chunks of a corpus
    model.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=n_ctx - 1, pad_token_id=start
    )
    chunks = []
    with ProgressBar(total=n, desc="sampling", unit="chunk") as bar, torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for first in range(0, n, _SAMPLED_AT_ONCE):
            begun = torch.full((min(_SAMPLED_AT_ONCE, n - first), 1), start, dtype=torch.long, device=device)
            written = model.generate(begun, attention_mask=torch.ones_like(begun))
            chunks.append(written.cpu().numpy().astype(np.int32))
            bar.update(len(begun))
    return _split(np.concatenate(chunks), "sampled from the model")


def batches(tokens: Tokens, n: int, seed: int) -> Callable[[int], NDArray[np.int32]]:
    """batch(step) int32 [n, n_ctx]: each chunk once, in an order that the seed decides, then again in another order."""

    def batch(step: int) -> NDArray[np.int32]:
        count = len(tokens.train)
        positions = np.arange(step * n, (step + 1) * n)
        epochs = {int(e): np.random.default_rng([seed, int(e)]).permutation(count) for e in set(positions // count)}
        return tokens.train[[epochs[int(p) // count][p % count] for p in positions]]

    return batch


def _split(chunks: NDArray[np.int32], source: str) -> Tokens:
    n = min(max(1, HELD_OUT_TOKENS // chunks.shape[1]), len(chunks) // _HELD_OUT_SHARE)
    if n < 1:
        raise InputError(
            f"{source}: {len(chunks)} chunks are too few to tune on and to hold some out; give at least "
            f"{_HELD_OUT_SHARE} chunks of text"
        )
    held = np.linspace(0, len(chunks) - 1, n + 1).astype(int)[1:]
    return Tokens(np.delete(chunks, held, axis=0), chunks[held], source)
