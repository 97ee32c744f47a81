"""What a GGUF file is, without measuring it."""

import math
from pathlib import Path

from gguf_golf.container.metadata import KEY_RECIPE, tuned_words
from gguf_golf.errors import InputError
from gguf_golf.evaluate.results import ModelResult
from gguf_golf.formats.protected import matrix_of
from gguf_golf.models.hashing import file_sha256
from gguf_golf.runtime.header import GgufHeader


def file_result(path: Path, role: str) -> ModelResult:
    """Hash, size, bits per weight, recipe and the type of every tensor; nothing measured. Raises InputError."""
    with GgufHeader(path) as header:
        tensors = header.tensors()
        recipe = header.text(KEY_RECIPE)
        tuned = tuned_words(header)
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    parameters = sum(math.prod(tensor.shape) for tensor in tensors if matrix_of(tensor.name) is None)
    return ModelResult(
        file=path.name,
        role=role,
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        bpw=8 * sum(tensor.bytes for tensor in tensors) / parameters,
        parameters=parameters,
        tensors=tensors,
        recipe=recipe,
        tuned=tuned,
    )
