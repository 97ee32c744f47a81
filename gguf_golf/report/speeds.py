"""Speed and memory: the columns of their table."""

from collections.abc import Callable
from dataclasses import dataclass

from gguf_golf.report import words
from gguf_golf.report.results import Model, Results


@dataclass(frozen=True)
class Column:
    """`of` gives a file's value, `largest` the largest of all files (for the bars)."""

    title: str
    of: Callable[[Model], float | None]
    show: Callable[[float], str]
    largest: float


def speeds(results: Results) -> list[Column]:
    """The columns that were measured; none if no speed was."""
    if not any(model.speed for model in results.models):
        return []
    known: list[tuple[str, Callable[[Model], float | None], Callable[[float], str]]] = [
        ("generation, tokens/s", lambda m: m.speed.get("generate_tps"), words.number),
        ("prompt, tokens/s", lambda m: m.speed.get("prompt_tps"), words.number),
        ("memory in use", lambda m: m.speed.get("resident_bytes"), words.size),
        ("file", lambda m: m.bytes, words.size),
        ("download (zstd -19)", lambda m: m.bytes_zstd, words.size),
        ("loading, s", lambda m: m.speed.get("load_seconds"), words.number),
    ]
    columns = []
    for title, of, show in known:
        values = [value for model in results.models if (value := of(model)) is not None]
        if values and max(values) > 0:
            columns.append(Column(title, of, show, max(values)))
    return columns
