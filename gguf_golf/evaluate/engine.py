"""Any program that computes logits, judged against the same base as the GGUF files: a protocol of three methods.

An engine's scores are not cached: nothing tells one version of somebody's program from the next.
"""

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import DataError, InputError
from gguf_golf.evaluate.divergence import Scorer
from gguf_golf.evaluate.logits_file import LogitsFile
from gguf_golf.models.hashing import file_sha256
from gguf_golf.progress import ProgressBar

OURS = {"transformers": "gguf_golf.evaluate.transformers_engine"}
"""Engines that come with gguf-golf, and their modules; any other is named by its module."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".npz")
"""Files that count as a model's size: its weights, not its tokenizer and configuration."""


class Engine(Protocol):
    """What a program has to offer so that its model can be judged; what `gguf_golf.load` returns offers it too."""

    def tokenize(self, text: str, /) -> NDArray[np.int32]:
        """Token ids int32 [n] of a whole text, with or without BOS in front."""
        ...

    def logits(self, tokens: NDArray[np.int32], /) -> NDArray[np.float32]:
        """The logits f32 [n, n_vocab] after each of n tokens, which start a new sequence."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


@dataclass(frozen=True)
class Peer:
    """A model in another engine: its name in tables, the engine, and the bytes of its weights.

    `sha256` is that of the weights, where there are files to hash: reports join rows that have the same.
    """

    name: str
    engine: Engine
    bytes: int
    sha256: str = ""


@dataclass(frozen=True)
class WithBos:
    """An engine's tokenizer with BOS in front of every text, whether the engine puts it there or not."""

    engine: Engine
    bos: int | None

    def tokenize(self, text: str, /) -> NDArray[np.int32]:
        """Token ids int32 [n]; without BOS where `bos` is None and the engine adds none."""
        tokens = np.asarray(self.engine.tokenize(text), np.int32)
        has_it = self.bos is None or (len(tokens) and tokens[0] == self.bos)
        return tokens if has_it else np.concatenate([np.array([self.bos], np.int32), tokens])


@contextmanager
def open_peers(specifications: Sequence[str], threads: int) -> Iterator[list[Peer]]:
    """Models by ENGINE:PATH. ENGINE is one of OURS, or a Python module with `open_engine(path, threads) -> Engine`.

    Raises InputError for an engine that cannot be imported and a path without weights, and what the engine raises.
    """
    with ExitStack() as stack:
        peers = [_open(specification, threads) for specification in specifications]
        for peer in peers:
            stack.enter_context(closing(peer.engine))
        yield peers


def score(peer: Peer, base: LogitsFile, bos: int | None, threads: int) -> NDArray[np.void]:
    """TOKEN_SCORE [n_chunk, n_scored] of an engine against the base's log-probabilities, on the base's tokens.

    `bos` replaces the first token of each chunk, as it did for the base; None where the model wants no BOS. Raises
    InputError for logits of another shape, DataError for logits that are NaN or Inf.
    """
    shape, scores = base.shape, []
    with Scorer(threads) as scorer:
        for chunk in ProgressBar(range(shape.n_chunk), total=shape.n_chunk, desc=peer.name, unit="chunk"):
            seen = base.tokens[chunk].copy()
            if bos is not None:
                seen[0] = bos
            logits = np.asarray(peer.engine.logits(seen), np.float32)
            if logits.shape != (shape.n_ctx, shape.n_vocab):
                raise InputError(
                    f"{peer.name}: its logits of {shape.n_ctx} tokens have the shape {logits.shape}, not "
                    f"{(shape.n_ctx, shape.n_vocab)} as the base's; only models with one vocabulary can be compared"
                )
            try:
                scores.append(scorer.compare(logits[shape.first : -1], base.targets(chunk), base.rows(chunk)))
            except DataError as error:
                raise DataError(f"{peer.name}, chunk {chunk + 1}: {error}") from error
    return np.stack(scores)


def _open(specification: str, threads: int) -> Peer:
    name, _, argument = specification.partition(":")
    path = Path(argument)
    if not argument or not path.exists():
        raise InputError(
            f"{specification}: write ENGINE:PATH with a path that exists, such as transformers:./MyModel-AWQ"
        )
    files = _weight_files(path)
    try:
        open_engine = importlib.import_module(OURS.get(name, name)).open_engine
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{name}: there is no such engine ({error}); there is {', '.join(OURS)}, and any Python module with a "
            "function open_engine(path, threads) (docs/evaluation.md)"
        ) from error
    digests = "\n".join([name, *map(file_sha256, files)])
    return Peer(
        f"{path.resolve().name} ({name})",
        open_engine(path, threads),
        sum(file.stat().st_size for file in files),
        hashlib.sha256(digests.encode()).hexdigest(),
    )


def _weight_files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in WEIGHTS)
    if not files:
        raise InputError(f"{path}: holds no weights ({', '.join(WEIGHTS)})")
    return files
