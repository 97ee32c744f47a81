"""A suite: what to measure, as a TOML file says it. `evaluate.py` measures it."""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from gguf_golf import datasets
from gguf_golf.errors import InputError, did_you_mean
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.speed import SpeedSettings
from gguf_golf.evaluate.tasks.kind import Task
from gguf_golf.evaluate.tasks.kinds import find_kind

Settings = TypeVar("Settings")
KEYS = {"name": str, "texts": list, "tasks": list, "speed": dict, "noise_floor": bool, "zstd": bool}


@dataclass(frozen=True)
class Suite:
    """What to measure. `noise_floor` and `zstd` add the row of noise and the size after zstd -19."""

    name: str | None
    texts: tuple[TextSettings, ...] = ()
    tasks: tuple[Task, ...] = ()
    speed: SpeedSettings | None = None
    noise_floor: bool = False
    zstd: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "suite": self.name,
            "texts": [text.to_json() for text in self.texts],
            "tasks": [task.to_json() for task in self.tasks],
            "speed": self.speed.to_json() if self.speed else None,
        }


def read_suite(path: str | Path) -> Suite:
    """Read a suite; its files are named relative to it, or as "data:NAME/FILE" (datasets.py).

    Raises InputError for anything it cannot mean.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not TOML ({error})") from error
    for key, value in table.items():
        if key not in KEYS:
            raise InputError(f"{path}: a suite has no key {key!r}{did_you_mean(key, KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise InputError(f"{path}: {key} cannot be {value!r}; it is a {KEYS[key].__name__}")
    suite = Suite(
        name=table.get("name", path.stem),
        texts=tuple(_settings(TextSettings, "a text", entry, path) for entry in table.get("texts", [])),
        tasks=tuple(_task(entry, path) for entry in table.get("tasks", [])),
        speed=_settings(SpeedSettings, "speed", table["speed"], path) if "speed" in table else None,
        noise_floor=table.get("noise_floor", False),
        zstd=table.get("zstd", False),
    )
    _check_names(path, "texts", [text.label for text in suite.texts])
    _check_names(path, "tasks", [task.name for task in suite.tasks])
    if not suite.texts and not suite.tasks and suite.speed is None:
        raise InputError(f"{path}: names nothing to measure: no texts, no tasks, no speed")
    if suite.noise_floor and not suite.texts:
        raise InputError(f"{path}: noise_floor is measured on texts, and there are none")
    return suite


def _task(entry: Any, path: Path) -> Task:
    """One entry of `tasks`: its kind decides which other keys it takes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise InputError(f"{path}: a task needs a `kind`, as text")
    try:
        kind = find_kind(entry["kind"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    others = {key: value for key, value in entry.items() if key != "kind"}
    return Task(kind, _settings(kind.settings, f"a task of kind {kind.name}", others, path))


def _settings(made_of: type[Settings], what: str, entry: Any, path: Path) -> Settings:
    """One table of a suite as settings, files relative to the suite; InputError names what does not belong."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {entry!r} should be a table")
    known = {field.name: field for field in fields(made_of)}  # type: ignore[arg-type]
    for key in entry:
        if key not in known:
            raise InputError(f"{path}: {what} has no key {key!r}{did_you_mean(key, known)}")
    required = [name for name, field in known.items() if field.default is MISSING]
    if missing := [name for name in required if name not in entry]:
        raise InputError(f"{path}: {what} needs {', '.join(missing)}")
    hints = get_type_hints(made_of)
    values = {key: _value(value, hints[key], f"{path}: {key} of {what}", path) for key, value in entry.items()}
    try:
        return made_of(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _value(value: Any, hint: Any, where: str, path: Path) -> Any:
    """A value of TOML as the type that a setting has."""
    allowed = get_args(hint) or (hint,)
    if Path in allowed and isinstance(value, str):
        if value.startswith(datasets.PREFIX):
            return datasets.find(value.removeprefix(datasets.PREFIX))
        file = path.resolve().parent / value
        if not os.path.exists(file):  # unlike Path.exists, for names that no file can have too
            raise InputError(f"{where}: {file} does not exist")
        return file
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) in allowed:
        return value
    raise InputError(f"{where} cannot be {value!r}")


def _check_names(path: Path, what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two {what} have the same name; give each its own `name`")
