"""One text, three uses: its beginning calibrates, passages spread over the rest rank tensors and control plans.

What calibrates must not judge: an encoder looks better on the text that it was optimised for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gguf_golf.calibrate.chunks import read_text
from gguf_golf.errors import InputError
from gguf_golf.runtime.session import LoadedModel

CALIBRATION_SHARE = 0.7
"""Of a text that is too short for all uses, this share calibrates."""


@dataclass(frozen=True)
class Split:
    """Chunks that the text's beginning has for calibration, and the bytes of two texts that follow it.

    Both are made of passages of one chunk each, evenly spaced over what follows and disjoint. Their tokens start at the
    boundaries of chunks again, give or take a few, so that no chunk has a break in what is scored.
    """

    calibration_chunks: int
    ranking: bytes
    control: bytes


def split(model_path: Path, text_path: Path, n_ctx: int, calibration: int, ranking: int, control: int) -> Split:
    """Divide a text for a model into so many chunks of `n_ctx` tokens for each use.

    A shorter text gives each use its share, and each at least one chunk. Raises InputError for a text of less than
    four chunks.
    """
    text = read_text(text_path)
    with LoadedModel(model_path, vocab_only=True) as model:
        tokens = model.tokenize(text)
        available = len(tokens) // n_ctx
        if available < 4:
            raise InputError(
                f"{text_path}: {len(tokens)} tokens are too few to calibrate on one part and to check on another; "
                f"use a text of at least {4 * n_ctx} tokens, better of {(calibration + ranking + control) * n_ctx}"
            )
        calibration = min(calibration, int(CALIBRATION_SHARE * available))
        n_passages = min(ranking + control, available - calibration)
        n_ranking = min(ranking, max(1, n_passages * ranking // (ranking + control)), n_passages - 1)
        starts = np.linspace(calibration, available - 1, n_passages).astype(int) * n_ctx
        passages = [b"".join(model.piece(int(token)) for token in tokens[first : first + n_ctx]) for first in starts]
    ranks = {round(index) for index in np.linspace(0, n_passages - 1, n_ranking + 2)[1:-1]}
    return Split(
        calibration,
        _joined(passage for index, passage in enumerate(passages) if index in ranks),
        _joined(passage for index, passage in enumerate(passages) if index not in ranks),
    )


def _joined(passages: Iterable[bytes]) -> bytes:
    """The passages one after the other; a character that the first or last token has only a part of is left out."""
    return b"".join(passages).decode("utf-8", "ignore").encode() + b"\n"
