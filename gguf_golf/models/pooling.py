"""How an embedding model makes one vector of its outputs, as sentence-transformers' modules.json says."""

import json
from pathlib import PurePosixPath
from typing import Any

from gguf import PoolingType

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config, read_json

MODES = {
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_lasttoken": PoolingType.LAST,
}


def pooling_type(config: Config) -> PoolingType | None:
    """The pooling of the checkpoint; None where it has no modules.json. Modules that GGUF lacks go into the notes.

    Raises InputError for a pooling that llama.cpp does not compute.
    """
    path = config.directory / "modules.json"
    if not path.is_file():
        return None
    found = None
    for module in _modules(config):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            found = _mode(config, str(module.get("path", "")))
        elif kind not in ("Transformer", "Normalize"):  # llama.cpp normalizes embeddings by itself
            config.note(f"modules.json has a {kind} layer after the model, which the file does not have")
    return found


def _modules(config: Config) -> list[dict[str, Any]]:
    path = config.directory / "modules.json"
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InputError(f"{path} is not a list of modules; download it again")
    return modules


def _mode(config: Config, folder: str) -> PoolingType:
    if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
        raise InputError(f"{config.directory}/modules.json: {folder!r} is not a folder of the checkpoint")
    path = config.directory / folder / "config.json"
    settings = read_json(path)
    chosen = [mode for mode in settings if mode.startswith("pooling_mode_") and settings[mode]]
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise InputError(
            f"{path}: pooling by {' and '.join(chosen) or 'nothing'}; llama.cpp knows mean, first and last token"
        )
    return MODES[chosen[0]]
