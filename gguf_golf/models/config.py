"""config.json of a Hugging Face directory, read with types checked and errors that name the key."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError

MAX_INTEGER = 2**31 - 1
TEXT_KEYS = ("text_config", "llm_config", "language_config")
"""Where a model of several kinds of input keeps the settings of its language model."""


@dataclass(frozen=True)
class Config:
    """The values of one config.json; `directory` is where it lies, for messages and for the files beside it.

    It remembers which keys were asked for, and collects what a user should be told (`note`).
    """

    directory: Path
    values: dict[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def with_defaults(self, defaults: Mapping[str, Any]) -> "Config":
        """The same with values for keys that the file lacks."""
        return replace(self, defaults=defaults)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of any type; the family's default, then `default`, where the file lacks it. A null is None."""
        self.used.add(key)
        return self.values[key] if key in self.values else self.defaults.get(key, default)

    def text(self) -> "Config":
        """The language model's settings: those of text_config come first, where a model also sees or hears."""
        parts = [self.values[key] for key in TEXT_KEYS if isinstance(self.values.get(key), dict)]
        inner: dict[str, Any] = parts[0] if parts else {}
        return replace(self, values={**self.values, **inner})

    def note(self, text: str) -> None:
        """Tell the user something about this checkpoint; once, however often it is noticed."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def architecture(self) -> str:
        """The transformers class, such as "LlamaForCausalLM". Raises InputError if the file names none."""
        names = self.get("architectures")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise InputError(f'{self.directory}/config.json: no "architectures", such as ["LlamaForCausalLM"]')
        return names[0]

    @property
    def quantization(self) -> str | None:
        """How the checkpoint is already quantized ("gptq", "awq", "fp8", ...), or None for full precision."""
        settings = self.get("quantization_config")
        if not settings:
            return None
        return str(settings.get("quant_method", "unknown")) if isinstance(settings, dict) else "unknown"

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1, and no more than llama.cpp can hold.

        Raises InputError where it is missing (and has no default) or is none.
        """
        value = self.get(key, default)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_INTEGER:
            raise InputError(f"{self.directory}/config.json: {key} must be a positive integer, not {value!r:.50}")
        return value

    def number(self, key: str, default: float) -> float:
        """A real number. Raises InputError if it is anything else."""
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"{self.directory}/config.json: {key} must be a number, not {value!r}")
        try:
            return float(value)
        except OverflowError as error:
            raise InputError(f"{self.directory}/config.json: {key} is too large a number") from error


def read_config(directory: Path) -> Config:
    """Read DIRECTORY/config.json. Raises InputError if it is missing or is no JSON object."""
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(
            f"{directory} has no config.json: give a Hugging Face model directory (config.json, *.safetensors and the "
            "tokenizer's files) or a GGUF file"
        )
    return Config(directory, read_json(path))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError if the file cannot be read as one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no JSON object; download it again")
    return values


def read_optional_json(path: Path) -> dict[str, Any]:
    """Like read_json, but {} where there is no such file."""
    return read_json(path) if path.is_file() else {}
