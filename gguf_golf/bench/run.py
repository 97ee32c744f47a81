"""`gguf-golf bench`: measure types and whole models."""

from collections.abc import Sequence
from typing import Any

from gguf_golf.bench import kernels, models
from gguf_golf.threads import available

SCHEMA = "gguf-golf/bench"


def bench(types: Sequence[str], rounds: int, with_models: bool) -> tuple[str, dict[str, Any]]:
    """Measure types (none: all) and, if asked, whole models on one thread and on two where there are as many.

    Returns the tables as text, and the document {"schema", "types": [...], "models": [...]}.
    """
    speeds = kernels.measure(types, rounds)
    counts = sorted({1, min(2, available())})
    tokens = models.measure(list(models.MODELS), counts, rounds) if with_models else []
    text = "\n\n".join([kernels.table(speeds), *([models.table(tokens)] if tokens else [])])
    document = {"types": [speed.to_json() for speed in speeds], "models": [speed.to_json() for speed in tokens]}
    return text, {"schema": SCHEMA, **document}
