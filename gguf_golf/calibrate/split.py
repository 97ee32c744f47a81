"""One text, three uses: its beginning calibrates, passages spread over the rest rank tensors and control plans.

What calibrates must not judge: an encoder looks better on the text that it was optimised for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gguf_golf.calibrate.chunks import read_text
from gguf_golf.errors import InputError
from gguf_golf.runtime.session import LoadedModel

CALIBRATION_SHARE = 0.7
"""Of a text that is too short for all uses, this share calibrates."""

MARGIN = 1.15
"""Passages are this much longer than their chunk on average, as tokens are not equally long everywhere."""


@dataclass(frozen=True)
class Split:
    """Chunks that the text's beginning has for calibration, and the bytes of two texts that follow it.

    Both are made of passages of about one chunk, evenly spaced over what follows and disjoint.
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
        start = sum(len(model.piece(int(token))) for token in tokens[: calibration * n_ctx])
    per_chunk = (len(text) - start) * n_ctx / (len(tokens) - calibration * n_ctx)
    rest = text[min(start, len(text)) :]
    n_passages = max(2, min(ranking + control, int(len(rest) / (MARGIN * per_chunk))))
    n_ranking = max(1, min(ranking, n_passages * ranking // (ranking + control) or 1, n_passages - 1))
    passages = _passages(rest, n_passages, round(MARGIN * per_chunk))
    ranks = {round(index) for index in np.linspace(0, n_passages - 1, n_ranking + 2)[1:-1]}
    return Split(
        calibration,
        b"\n".join(passage for index, passage in enumerate(passages) if index in ranks),
        b"\n".join(passage for index, passage in enumerate(passages) if index not in ranks),
    )


def _passages(text: bytes, count: int, size: int) -> list[bytes]:
    """`count` passages of about `size` bytes, evenly spaced, from the start of a line where there is one nearby."""
    step = len(text) / count
    passages = []
    for index in range(count):
        first, end = int(index * step), int((index + 1) * step)
        line = text.find(b"\n", first, max(first, end - size) + 1) + 1
        first = line or first
        # whole characters: continuation bytes of UTF-8 look like 10xxxxxx
        while first < len(text) and text[first] & 0xC0 == 0x80:
            first += 1
        last = min(first + size, end)
        while last < len(text) and text[last] & 0xC0 == 0x80:
            last += 1
        passages.append(text[first:last])
    return passages
