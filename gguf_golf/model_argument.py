"""MODEL means the same in every command: a Hugging Face folder, a GGUF, any part of a split GGUF, or a hub id."""

import hashlib
import re
from pathlib import Path

from gguf_golf import __version__
from gguf_golf.errors import InputError
from gguf_golf.models import open_model
from gguf_golf.models.gguf_file import PART_NAME
from gguf_golf.quantize.convert import convert
from gguf_golf.runtime.cache import cache_dir

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WANTED = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")
"""What of a checkpoint on the hub is downloaded; pickled weights only where there are no others."""


def locate(model: str) -> Path:
    """The folder or file that MODEL names; a model of the hub is downloaded into the hub's own cache first.

    Raises InputError for what is not there, saying which command gets it where that may be the problem.
    """
    path = Path(model)
    if path.exists():
        return path
    if not HUB_ID.fullmatch(model):
        raise InputError(f"{model} does not exist: give a Hugging Face folder or a GGUF file")
    return _from_hub(model)


def as_gguf(path: Path) -> Path:
    """A file that llama.cpp can load: `path` itself, the first part of a split GGUF, or a conversion of a folder.

    A folder is converted once, in its own precision, into the cache. Raises InputError as `convert` does.
    """
    if not path.is_dir():
        part = PART_NAME.fullmatch(path.name)
        return path if part is None else path.with_name(f"{part['stem']}-00001-of-{part['parts']}.gguf")
    target = cache_dir() / "converted" / f"{path.resolve().name}-{_key(path)}.gguf"
    if not target.is_file():
        open_model(path)  # what cannot be converted is said before anything is made
        target.parent.mkdir(parents=True, exist_ok=True)
        convert(path, target, type_name=None)
    return target


def _from_hub(model: str) -> Path:
    command = f"hf download {model} --local-dir {model.split('/')[1]}"
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise InputError(
            f"{model} is not here. If it is a model on the Hugging Face hub, `pip install 'gguf-golf[hub]'` lets "
            f"gguf-golf download it, or download it yourself: {command}"
        ) from None
    try:
        return Path(snapshot_download(model, allow_patterns=list(WANTED)))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{model} is neither here nor could it be downloaded from the Hugging Face hub ({reason}). "
            f"Where the hub can be reached, run: {command}"
        ) from error


def _key(directory: Path) -> str:
    """Names the conversion of a folder: a hash of our version and of every file's name, size and time of change."""
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
