"""Speed and memory: the columns of their table."""

from collections.abc import Callable
from dataclasses import dataclass

from gguf_golf.report import words
from gguf_golf.report.results import Model, Results


@dataclass(frozen=True)
class Column:
    """One measure of speed or size; `largest` is the largest of all files (for the bars)."""

    title: str
    key: str
    show: Callable[[float], str]
    largest: float

    def of(self, model: Model) -> float | None:
        """A file's value: its median, where several runs were made."""
        return _value(model, self.key)

    def spread(self, model: Model) -> str:
        """The slowest and the fastest run; nothing if there was only one."""
        low, high = model.speed.get(f"{self.key}_min"), model.speed.get(f"{self.key}_max")
        return "" if low is None or high is None or low == high else f"{self.show(low)} to {self.show(high)}"


_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("generation, tokens/s", "generate_tps", words.number),
    ("prompt, tokens/s", "prompt_tps", words.number),
    ("memory in use", "resident_bytes", words.size),
    ("file", "bytes", words.size),
    ("download (zstd -19)", "bytes_zstd", words.size),
    ("loading, s", "load_seconds", words.number),
)


def speeds(results: Results) -> list[Column]:
    """The columns that were measured; none if no speed was."""
    if not any(model.speed for model in results.models):
        return []
    columns = []
    for title, key, show in _COLUMNS:
        values = [value for model in results.models if (value := _value(model, key)) is not None]
        if values and max(values) > 0:
            columns.append(Column(title, key, show, max(values)))
    return columns


def _value(model: Model, key: str) -> float | None:
    sizes = {"bytes": model.bytes, "bytes_zstd": model.bytes_zstd}
    return sizes[key] if key in sizes else model.speed.get(key)
