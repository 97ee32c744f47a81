"""`gguf-golf bench`: measure, say, and write."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from gguf_golf.bench import kernels, models
from gguf_golf.threads import resolve


def bench(
    types: Sequence[str],
    rounds: int,
    model_names: Sequence[str],
    json_path: Path | None,
    say: Callable[[str], None],
) -> None:
    """Measure types (none: all) and whole models (on one thread and on all, at most 2); `say` receives the tables.

    `json_path` receives {"types": [...], "models": [...]}, written aside and renamed.
    """
    speeds = kernels.measure(types, rounds)
    say(kernels.table(speeds))
    threads = sorted({1, min(2, resolve(None))})
    tokens = models.measure(model_names, threads, rounds) if model_names else []
    if tokens:
        say("\n" + models.table(tokens))
    if json_path is not None:
        document = {"types": [s.to_json() for s in speeds], "models": [s.to_json() for s in tokens]}
        partial = json_path.with_name(json_path.name + ".part")
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        partial.replace(json_path)
