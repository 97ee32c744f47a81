"""MODEL means the same in every command: a Hugging Face folder, a GGUF, any part of a split GGUF, or a hub id."""

import re
from pathlib import Path

from gguf_golf.errors import InputError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WANTED = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")
"""What of a checkpoint on the hub is downloaded: weights as safetensors, configuration, tokenizer."""


def locate(model: str) -> Path:
    """The folder or file that MODEL names; a model on the hub is downloaded into the hub's own cache first.

    Raises InputError for what is not there, with the command that gets it where that may be the problem.
    """
    path = Path(model)
    if path.exists():
        return path
    if not HUB_ID.fullmatch(model) or path.suffix == ".gguf":
        raise InputError(f"{model} does not exist: give a Hugging Face folder or a GGUF file")
    command = f"hf download {model} --local-dir {path.name}"
    try:
        from huggingface_hub import snapshot_download  # an extra, and slow to import
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise InputError(
            f"{model} is not here. If it is a model on the Hugging Face hub, `pip install 'gguf-golf[hub]'` lets "
            f"gguf-golf download it; or download it yourself: {command}"
        ) from None
    try:
        return Path(snapshot_download(model, allow_patterns=list(WANTED)))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{model} is not here, and cannot be downloaded from the Hugging Face hub ({reason}). "
            f"Where the hub can be reached, run: {command}"
        ) from error
