"""Training after quantization: the same format and size, with content that keeps the model's predictions."""

from importlib.util import find_spec

from gguf_golf.errors import InputError


def require_extra() -> None:
    """Raise InputError, before the import of anything that needs them, if PyTorch or transformers is missing."""
    if missing := [name for name in ("torch", "transformers") if find_spec(name) is None]:
        raise InputError(f"tuning needs {' and '.join(missing)}: pip install 'gguf-golf[tune]'")
