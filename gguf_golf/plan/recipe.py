"""The recipe: a short TOML file that says which type each tensor takes, and why. Made to be read and edited.

    format = 1
    predicted_bytes = 38400000
    predicted_kld = 3.12e-02

    [source]
    fingerprint = "..."

    [tensors]
    "token_embd.weight" = { type = "tcq5", kld = 4.10e-04, kld_per_mb = 1.20e-04 }
    "output.weight" = { type = "tcq3", rows = 512, residual = "tcq2" }
    "blk.*.attn_v.weight" = "tcq4"

Only `format` and `[tensors]` are required. Keys may be shell globs; a tensor's own name goes before a glob, an earlier
glob before a later one. Tensors that are not quantizable are F32 and not named. `rows` protects the rows of that many
tokens, the most frequent ones (docs/formats.md); `residual`, their residual's type, is tcq2 if it is not named.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gguf_golf import __version__
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.protected import DEFAULT_RESIDUAL, NOT_APPLIED, Protected, protected
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import Model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable

FORMAT = 1
MARK = b"# A recipe of gguf-golf"


@dataclass(frozen=True)
class Line:
    """A tensor's type, and its protected rows; its share of the predicted damage, and what the next MB (10^6 bytes) for
    it would buy, nats."""

    type: str
    kld: float | None = None
    kld_per_mb: float | None = None
    rows: int = 0
    residual: str = DEFAULT_RESIDUAL

    def __str__(self) -> str:
        return f"{self.type} + {self.rows} rows in {self.residual}" if self.rows else self.type


@dataclass(frozen=True)
class Recipe:
    """`tensors` maps names or globs to lines. `source` holds provenance: names and hashes of what was planned from.

    `super_weights` says, for each weight that must be kept, how it is kept.
    """

    tensors: dict[str, Line]
    budget: str | None = None
    predicted_bytes: int | None = None
    predicted_kld: float | None = None
    source: dict[str, str] = field(default_factory=dict)
    super_weights: dict[str, str] = field(default_factory=dict)

    def types_for(self, model: Model) -> tuple[dict[str, QuantType], list[str]]:
        """The type of every tensor of the model, and notes on rows that a type's block does not divide.

        Raises InputError for a tensor without a line, a line without a tensor, or a name that is no type.
        """
        chosen, notes, used = {}, [], set()
        for tensor in model.tensors:
            if not is_quantizable(tensor):
                chosen[tensor.name] = quant_types.get("f32")
                continue
            key = self._key(tensor.name)
            used.add(key)
            chosen[tensor.name], note = quant_types.type_for_row(self.tensors[key].type, tensor.shape[-1])
            if note:
                notes.append(f"{tensor.name}: {note}")
        names = [tensor.name for tensor in model.tensors if is_quantizable(tensor)]
        for key in self.tensors:
            if key not in used and not any(fnmatchcase(name, key) for name in names):
                raise InputError(f"the recipe has a line for {key}, and the model no such tensor")
        return chosen, notes

    def protected_for(self, model: Model) -> dict[str, Protected]:
        """The protected rows of the model's tensors, by name.

        Raises InputError for tensors that cannot have any: only the rows of a vocabulary are tokens.
        """
        found = {}
        for tensor in model.tensors:
            line = self.tensors[self._key(tensor.name)] if is_quantizable(tensor) else None
            if line is None or not line.rows:
                continue
            if tensor.name not in EMBEDDINGS:
                raise InputError(f"the recipe protects rows of {tensor.name}: only {' and '.join(EMBEDDINGS)} can")
            if model.architecture in NOT_APPLIED:
                raise InputError(f"llama.cpp's {model.architecture} does not apply protected rows: remove them")
            if not 0 < line.rows <= tensor.n_rows:
                raise InputError(f"the recipe protects {line.rows} rows of {tensor.name}, which has {tensor.n_rows}")
            found[tensor.name] = protected(line.rows, line.residual, tensor.shape[-1])
        return found

    def _key(self, name: str) -> str:
        if name in self.tensors:
            return name
        for key in self.tensors:
            if fnmatchcase(name, key):
                return key
        raise InputError(f'the recipe has no line for {name}: add one, such as "{name}" = "tcq4"')


def to_toml(recipe: Recipe) -> str:
    """The recipe as text; numbers are rounded to what a person reads."""
    lines = [
        f"{MARK.decode()} {__version__}. Edit types as you like, then:",
        "# gguf-golf quantize MODEL --recipe THIS_FILE -o OUT.gguf",
        "",
        f"format = {FORMAT}",
    ]
    if recipe.budget is not None:
        lines.append(f"budget = {_quoted(recipe.budget)}")
    if recipe.predicted_bytes is not None:
        lines.append(f"predicted_bytes = {recipe.predicted_bytes}")
    if recipe.predicted_kld is not None:
        lines.append(f"predicted_kld = {_number(recipe.predicted_kld)}")
    for title, table in (("source", recipe.source), ("super_weights", recipe.super_weights)):
        if table:
            lines += ["", f"[{title}]", *(f"{_key_text(key)} = {_quoted(value)}" for key, value in table.items())]
    lines += ["", "# kld: this tensor's share of the damage; kld_per_mb: what 10^6 bytes more for it would save"]
    lines.append("[tensors]")
    for name, line in recipe.tensors.items():
        parts = [f"type = {_quoted(line.type)}"]
        if line.rows:
            parts.append(f"rows = {line.rows}, residual = {_quoted(line.residual)}")
        if line.kld is not None:
            parts.append(f"kld = {_number(line.kld)}")
        if line.kld_per_mb is not None:
            parts.append(f"kld_per_mb = {_number(line.kld_per_mb)}")
        lines.append(f"{_quoted(name)} = {{ {', '.join(parts)} }}")
    return "\n".join(lines) + "\n"


def from_toml(text: str, path: Path | str) -> Recipe:
    """Parse a recipe; `path` is only for messages. Raises InputError that says what is wrong in which line or key."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    if document.get("format") != FORMAT:
        raise InputError(f"{path}: format is {document.get('format')!r}, and this gguf-golf reads format = {FORMAT}")
    known = {"format", "budget", "predicted_bytes", "predicted_kld", "source", "super_weights", "tensors"}
    if unknown := sorted(set(document) - known):
        raise InputError(f"{path}: unknown entry {unknown[0]}; known are {', '.join(sorted(known))}")
    tables = {name: document.get(name, {}) for name in ("source", "super_weights", "tensors")}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(f"{path}: {name} has to be a table, [{name}]")
    if not tables["tensors"]:
        raise InputError(f'{path}: no [tensors]: name a type for each, such as "blk.*.weight" = "tcq3"')
    return Recipe(
        tensors={name: _line(name, value, path) for name, value in tables["tensors"].items()},
        budget=_typed(document, "budget", str, path),
        predicted_bytes=_typed(document, "predicted_bytes", int, path),
        predicted_kld=_typed(document, "predicted_kld", float, path),
        source={key: str(value) for key, value in tables["source"].items()},
        super_weights={key: str(value) for key, value in tables["super_weights"].items()},
    )


def read(path: Path) -> tuple[Recipe, str]:
    """A recipe file, parsed and as it is written. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); make a recipe with `gguf-golf plan`") from error
    return from_toml(text, path), text


def _line(name: str, value: Any, path: Path | str) -> Line:
    entry = {"type": value} if isinstance(value, str) else value
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise InputError(f'{path}: {name} needs a type, such as "tcq3" or {{ type = "tcq3" }}')
    known = {"type", "rows", "residual", "kld", "kld_per_mb"}
    if unknown := sorted(set(entry) - known):
        raise InputError(f"{path}: {name} has an unknown entry {unknown[0]}; known are {', '.join(sorted(known))}")
    residual = _typed(entry, "residual", str, path) or DEFAULT_RESIDUAL
    for type_name in (entry["type"], residual):
        quant_types.get(type_name)
    return Line(
        entry["type"],
        _typed(entry, "kld", float, path),
        _typed(entry, "kld_per_mb", float, path),
        _typed(entry, "rows", int, path) or 0,
        residual,
    )


def _typed(table: Mapping[str, Any], key: str, wanted: type, path: Path | str) -> Any:
    value = table.get(key)
    if value is None:
        return None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise InputError(f"{path}: {key} = {value!r} should be {wanted.__name__}")
    return value


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _key_text(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else _quoted(key)


def _number(value: float) -> str:
    """Three digits, always a TOML float, and always of one length: a changed prediction changes no file's size."""
    return f"{value:.2e}"
