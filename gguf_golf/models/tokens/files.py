"""The files of a checkpoint that describe its tokenizer, read once."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config, read_optional_json

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # in the order in which transformers adds missing ones


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text before the tokenizer's model sees it.

    `flags` are those that llama.cpp does not know: "lstrip", "rstrip", "single_word", and "normalized".
    """

    id: int
    text: str
    special: bool
    flags: frozenset[str]


@dataclass(frozen=True)
class TokenizerFiles:
    """tokenizer.json, tokenizer_config.json and what accompanies them; a missing file is an empty dict."""

    directory: Path
    config: Config
    tokenizer: dict[str, Any]
    settings: dict[str, Any]
    special_tokens_map: dict[str, Any]
    added_tokens_map: dict[str, Any]  # added_tokens.json: text -> id
    generation: dict[str, Any]

    @classmethod
    def read(cls, config: Config) -> "TokenizerFiles":
        """Read the files beside config.json. Raises InputError for one that is not a JSON object."""
        names = ("tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens", "generation_config")
        return cls(config.directory, config, *(read_optional_json(config.directory / f"{name}.json") for name in names))

    @property
    def path(self) -> Path:
        """Where tokenizer.json is, for messages."""
        return self.directory / "tokenizer.json"

    @property
    def model_path(self) -> Path:
        """Where a sentencepiece model is, if there is one."""
        return self.directory / "tokenizer.model"

    def token_text(self, kind: str) -> str | None:
        """The text of the "bos", "eos", "unk", ... token, where a file names it."""
        sources = [self.settings, self.special_tokens_map]
        if "added_tokens_decoder" not in self.settings:  # an older layout, in which the map has the last word
            sources.reverse()
        for source in sources:
            value = source.get(f"{kind}_token")
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                return text
        return None

    def token_ids(self, key: str, *sources: dict[str, Any]) -> list[int]:
        """The ids under `key` in the first source that has it; null and negative ids (which mean none) are left out."""
        for source in sources:
            value = source.get(key)
            if value is None:
                continue
            ids = value if isinstance(value, list) else [value]
            if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
                raise InputError(f"{self.directory}: {key} must be an integer or a list of them, not {value!r}")
            return [i for i in ids if i >= 0]
        return []

    @cached_property
    def added_tokens(self) -> list[AddedToken]:
        """Added tokens of all files by id; tokenizer_config.json has the last word, as in transformers."""
        found: dict[int, dict[str, Any]] = {i: {"content": text} for text, i in self.added_tokens_map.items()}
        found |= {token["id"]: token for token in self.tokenizer.get("added_tokens") or []}
        found |= {int(i): token for i, token in (self.settings.get("added_tokens_decoder") or {}).items()}
        if bad := [i for i in found if not isinstance(i, int) or i < 0]:
            raise InputError(f"{self.directory}: an added token has the id {bad[0]!r}; download the tokenizer again")
        flags = ("lstrip", "rstrip", "single_word", "normalized")
        return [
            AddedToken(i, token["content"], bool(token.get("special")), frozenset(f for f in flags if token.get(f)))
            for i, token in sorted(found.items())
        ]
