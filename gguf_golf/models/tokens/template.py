"""The chat template, from wherever a checkpoint keeps it."""

import json
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError
from gguf_golf.models.config import read_optional_json


def chat_template(directory: Path, settings: dict[str, Any]) -> str | list[dict[str, str]] | None:
    """The template, or a list of {"name", "template"} where there are several; None without one.

    Files of their own come before tokenizer_config.json (`settings`), as in transformers. Raises InputError for a
    template of another kind.
    """
    template: Any = settings.get("chat_template")
    if (path := directory / "chat_template.jinja").is_file():
        template = _text(path)
    elif "chat_template" in (older := read_optional_json(directory / "chat_template.json")):
        template = older["chat_template"]
    named = [
        {"name": path.stem, "template": _text(path)}
        for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))
    ]
    if named:
        template = [*([{"name": "default", "template": template}] if isinstance(template, str) else []), *named]
    match template:
        case None | str():
            return template
        case list() if all(isinstance(t, dict) and {"name", "template"} <= t.keys() for t in template):
            return template
    raise InputError(f"{directory}: the chat template is {json.dumps(template)[:60]}, not text; download it again")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); download it again") from error
