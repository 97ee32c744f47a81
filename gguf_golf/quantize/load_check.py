"""The last look before success is said: llama.cpp loads the file, and decodes a token of one that is not too large."""

from pathlib import Path

import numpy as np

from gguf_golf.errors import GolfError, InputError
from gguf_golf.runtime.session import LoadedModel

DECODED_BYTES = 1 << 27
"""Larger files are loaded without their weights: converting a model must not take the memory that running it takes."""


def check_loads(path: Path) -> list[str]:
    """Load the file that was just written, and decode one token; notes, if the result is not finite.

    A file that fails is renamed to NAME.broken. Raises InputError if llama.cpp cannot load it or decode with it.
    """
    small = path.stat().st_size <= DECODED_BYTES
    try:
        with LoadedModel(path, without_weights=not small) as model:
            return _check_token(model) if small and _generates(model) else []
    except GolfError as error:
        broken = path.with_name(path.name + ".broken")
        path.replace(broken)
        raise InputError(f"{path} was written, but does not run; it is now {broken.name}: {error}") from error


def _generates(model: LoadedModel) -> bool:
    """Whether it predicts tokens; an embedding model does not."""
    architecture = model.metadata("general.architecture")
    return (
        model.metadata(f"{architecture}.pooling_type") is None
        and model.metadata(f"{architecture}.attention.causal") != "false"
    )


def _check_token(model: LoadedModel) -> list[str]:
    token = max(model.text_start, 0)
    with model.context(8, threads=1) as context:
        logits = context.decode(np.array([token], np.int32), np.zeros(1, np.int32), np.ones(1, bool))
        if bad := int(logits.size - np.count_nonzero(np.isfinite(logits))):
            return [
                f"WARNING: {bad} of {logits.size} logits of the first token are NaN or infinite though all weights are "
                "finite: the model's values overflow in llama.cpp (its caches are F16)"
            ]
    return []
