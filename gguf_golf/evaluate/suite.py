"""A suite: what to measure, as a TOML file says it. `evaluate.py` measures it."""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from gguf_golf.errors import InputError
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.speed import SpeedSettings
from gguf_golf.evaluate.tasks.task import Task

Settings = TypeVar("Settings", TextSettings, Task, SpeedSettings)
PATHS = ("file", "extra")


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
    """Read a suite; its files are named relative to it. Raises InputError for anything it cannot mean."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML ({error})") from error
    known = {field.name for field in fields(Suite)}
    if unknown := sorted(table.keys() - known):
        raise InputError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    suite = Suite(
        name=table.get("name", path.stem),
        texts=tuple(_settings(TextSettings, entry, path) for entry in table.get("texts", [])),
        tasks=tuple(_settings(Task, entry, path) for entry in table.get("tasks", [])),
        speed=_settings(SpeedSettings, table["speed"], path) if "speed" in table else None,
        noise_floor=bool(table.get("noise_floor", False)),
        zstd=bool(table.get("zstd", False)),
    )
    for kind, names in (
        ("texts", [text.label for text in suite.texts]),
        ("tasks", [task.name for task in suite.tasks]),
    ):
        if len(set(names)) < len(names):
            raise InputError(f"{path}: two {kind} have the same name; give each its own `name`")
    if not suite.texts and not suite.tasks and suite.speed is None:
        raise InputError(f"{path}: names nothing to measure: no texts, no tasks, no speed")
    return suite


def _settings(kind: type[Settings], entry: Any, suite_path: Path) -> Settings:
    """One table of a suite as settings, files relative to the suite; InputError names what does not belong."""
    if not isinstance(entry, dict):
        raise InputError(f"{suite_path}: {entry!r} should be a table")
    hints = get_type_hints(kind)
    if unknown := sorted(entry.keys() - hints.keys()):
        raise InputError(
            f"{suite_path}: {kind.__name__} has no {', '.join(unknown)}; known are {', '.join(sorted(hints))}"
        )
    values: dict[str, Any] = {}
    for key, value in entry.items():
        wanted = hints[key]
        if key in PATHS and isinstance(value, str):
            values[key] = Path(value)
        elif isinstance(value, wanted) and not (isinstance(value, bool) and bool not in get_args(wanted)):
            values[key] = value
        elif wanted is float and type(value) is int:
            values[key] = float(value)
        else:
            raise InputError(f"{suite_path}: {kind.__name__}.{key} cannot be {value!r}")
    try:
        made = kind(**values)
    except TypeError as error:
        raise InputError(f"{suite_path}: a {kind.__name__} is incomplete ({error})") from error
    here = suite_path.resolve().parent
    relative = {name: here / value for name in PATHS if (value := getattr(made, name, None)) is not None}
    for file in relative.values():
        if not file.exists():
            raise InputError(f"{suite_path}: {file} does not exist")
    return replace(made, **relative)
