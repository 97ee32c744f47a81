"""MODEL (a Hugging Face directory, or a GGUF file) as lazy tensors and GGUF metadata."""

from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.models.gguf_file import open_gguf
from gguf_golf.models.huggingface import open_directory
from gguf_golf.models.model import LazyTensor, MetadataField, Model

__all__ = ["LazyTensor", "MetadataField", "Model", "open_model"]


def open_model(path: Path, *, allow_requantize: bool = False, trust_remote_code: bool = False) -> Model:
    """Open a Hugging Face directory or a GGUF file; nothing but headers and the tokenizer is read yet.

    A source that is already quantized is refused unless `allow_requantize`; then its tensors load dequantized. Python
    code that a checkpoint brings runs only with `trust_remote_code`, and only where llama.cpp's converter needs it.
    Raises InputError, with what to do, for anything that cannot be converted.
    """
    path = Path(path)
    if path.is_dir():
        return open_directory(path, allow_requantize=allow_requantize, trust_remote_code=trust_remote_code)
    if path.is_file():
        return open_gguf(path, allow_requantize=allow_requantize)
    raise InputError(f"{path} does not exist: give a Hugging Face directory or a GGUF file")
