"""How to tune, and what of it a file names; nothing here needs PyTorch."""

from dataclasses import dataclass
from pathlib import Path

METADATA_BYTES = 1024
"""More than that metadata takes."""

TEXT_CHARACTERS = 200
"""Of the texts' names, at most so many are kept."""

OWN_TOKENS = 1_000_000
"""A model writes at most so many tokens if it is not said how many; longer training reads them again."""

MEASURED_CHUNKS = 40
"""Chunks of a text that is only measured."""


@dataclass(frozen=True)
class Settings:
    """How to tune. Beside `texts`, the model writes `own_tokens` itself; None: none beside texts, and without any as
    many as are trained on, at most OWN_TOKENS. `tokens` is how many are trained on, in chunks of `n_ctx`; a text that
    has fewer is used again. `batch_tokens` None: what gives 400 steps, within bounds.
    `only_norms` leaves the matrices as `quantize` makes them. `measured` are texts of which MEASURED_CHUNKS chunks
    are measured before and after, and decide nothing. `start` is an untuned file with the same types, which saves
    encoding anew. `window` is how many layers are trained at a time; None: all. `device` is cpu or cuda."""

    texts: tuple[Path, ...] = ()
    measured: tuple[Path, ...] = ()
    start: Path | None = None
    window: int | None = None
    tokens: int = 2_000_000
    n_ctx: int = 512
    batch_tokens: int | None = None
    own_tokens: int | None = None
    only_norms: bool = False
    seed: int = 0
    device: str = "cpu"
