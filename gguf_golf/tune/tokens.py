"""What is trained on: chunks of tokens of text files, or text that the model itself writes."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.container.metadata import SAMPLED
from gguf_golf.errors import InputError
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import LoadedModel

HELD_OUT_TOKENS = 8192
_HELD_OUT_SHARE = 8  # at most one chunk in so many
_SAMPLED_AT_ONCE = {"cuda": 4096, "cpu": 64}
"""Chunks: a GPU takes as long for one as for thousands."""


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


def together(parts: Sequence[Tokens]) -> Tokens:
    """Several texts as one."""
    train, held_out = (np.concatenate(chunks) for chunks in zip(*((p.train, p.held_out) for p in parts), strict=True))
    return Tokens(train, held_out, ", ".join(part.source for part in parts))


def from_files(gguf_path: Path, texts: Sequence[Path], n_ctx: int) -> Tokens:
    """All chunks of the texts, tokenized as llama.cpp does; chunks spread evenly over each text are held out.

    Raises InputError for texts that are too short.
    """
    chunks = np.concatenate([read_chunks(gguf_path, text, n_ctx) for text in texts])
    return _split(chunks, ", ".join(text.name for text in texts))


def read_chunks(gguf_path: Path, text: Path, n_ctx: int, n_chunks: int | None = None) -> NDArray[np.int32]:
    """The first chunks int32 [n, n_ctx] of a text, or all, as llama.cpp cuts them. Raises InputError if it has none."""
    with LoadedModel(gguf_path, vocab_only=True) as model:
        return np.stack([with_bos(model, chunk) for chunk in text_chunks(model, text, n_ctx, n_chunks)])


def sampled(model: Any, start: int, n_chunks: int, n_ctx: int, *, seed: int, device: str, kept: Path) -> Tokens:
    """`n_chunks` chunks and those held out that a transformers model writes by itself, at temperature 1.

    `start` is the first token of each. The same seed gives the same tokens on the same device; `kept` is where they are
    kept for the next time.
    """
    n = n_chunks + max(1, min(HELD_OUT_TOKENS // n_ctx, n_chunks // _HELD_OUT_SHARE))
    path = kept.with_name(f"{kept.stem}-{start}-{n}x{n_ctx}-{seed}-{device}.npy")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replace_file(path) as partial, partial.open("wb") as file:
            np.save(file, _written(model, start, n, n_ctx, seed, device))
    return _split(np.load(path), SAMPLED)


def _written(model: Any, start: int, n: int, n_ctx: int, seed: int, device: str) -> NDArray[np.int32]:
    """Chunks int32 [n, n_ctx]."""
    if device == "cuda":
        model = copy.deepcopy(model).bfloat16()
    # no end of text: what would end one goes on as the next text, as in the chunks of a corpus
    model.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=n_ctx - 1, pad_token_id=start
    )
    at_once, chunks = _at_once(model, n_ctx, device), []
    with ProgressBar(total=n, desc="sampling", unit="chunk") as bar, torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for first in range(0, n, at_once):
            begun = torch.full((min(at_once, n - first), 1), start, dtype=torch.long, device=device)
            written = model.generate(begun, attention_mask=torch.ones_like(begun))
            chunks.append(written.cpu().numpy().astype(np.int32))
            bar.update(len(begun))
    return np.concatenate(chunks)


def _at_once(model: Any, n_ctx: int, device: str) -> int:
    """Chunks whose keys and values, twice, fit a third of a GPU's free memory."""
    if device == "cpu":
        return _SAMPLED_AT_ONCE[device]
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * 2 * 2 * config.num_hidden_layers * heads * width * n_ctx + 16 * config.vocab_size
    return int(max(1, min(_SAMPLED_AT_ONCE[device], torch.cuda.mem_get_info()[0] // 3 // each)))


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
