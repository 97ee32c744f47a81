"""Tokens a second of whole models through llama-bench: models of real shapes, every matrix in one type."""

import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_golf.bench.synthetic import SHAPES, write_model
from gguf_golf.errors import InputError
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime import tool

PROMPT, GENERATE = 512, 128

TYPES_256 = ("tcq2", "q2_k", "iq2_xs", "tcq3", "q3_k", "iq3_s", "tcq4", "q4_k", "iq4_xs", "tcq5", "q5_k")
TYPES_64 = ("tcq2", "tcq3", "tcq4", "q4_0", "tcq5", "q5_0", "q8_0")
"""By what the model's rows divide into; tcq2 on rows of 576 becomes tcq2_64."""

MODELS: dict[str, tuple[str, ...]] = {"golf-88m": TYPES_256, "smollm2-135m": TYPES_64, "1b": TYPES_256}


@dataclass(frozen=True)
class ModelSpeed:
    """One model in one type at one thread count; one sample of tokens per second per round."""

    model: str
    type: str
    bytes: int
    threads: int
    prefill: tuple[float, ...]
    generate: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Medians in tokens a second, and [least, most]."""
        return {
            **{"model": self.model, "type": self.type, "bytes": self.bytes, "threads": self.threads},
            "prefill_tokens_per_s": statistics.median(self.prefill),
            "generate_tokens_per_s": statistics.median(self.generate),
            "spread": {
                "prefill_tokens_per_s": [min(self.prefill), max(self.prefill)],
                "generate_tokens_per_s": [min(self.generate), max(self.generate)],
            },
        }


def measure(models: Sequence[str], threads: Sequence[int], rounds: int = 5, progress: bool = True) -> list[ModelSpeed]:
    """Measure the models (names in MODELS) on each number of threads; rounds go over the types in turn.

    Needs disk for one model in all its types, 6 GB for 1b. Raises InputError for an unknown model, BuildError when
    llama-bench is not built.
    """
    for model in models:
        if model not in MODELS:
            raise InputError(f"{model} is not a model that can be measured; models are {', '.join(MODELS)}")
    bench = tool("llama-bench")
    results = []
    for model in models:
        with tempfile.TemporaryDirectory(prefix="gguf-golf-bench-") as folder:
            paths = {name: Path(folder) / f"{name}.gguf" for name in MODELS[model]}
            sizes = {name: write_model(path, SHAPES[model], name) for name, path in paths.items()}
            runs: dict[tuple[str, int], list[tuple[float, float]]] = {(name, n): [] for name in paths for n in threads}
            for _ in range(rounds):
                for name, n in ProgressBar(runs, desc=model, unit="run", disable=not progress, leave=False):
                    runs[name, n].append(_run(bench, paths[name], n))
            for (name, n), samples in runs.items():
                prefill, generate = zip(*samples, strict=True)
                results.append(ModelSpeed(model, name, sizes[name], n, prefill, generate))
    return results


def table(speeds: Sequence[ModelSpeed]) -> str:
    """The medians as text, with [least, most]."""
    lines = [f"{'model':13}{'type':8}{'MB':>7}{'threads':>8}{'prefill 512 t/s':>26}{'generate 128 t/s':>26}"]
    for s in speeds:
        line = f"{s.model:13}{s.type:8}{s.bytes / 1e6:7.1f}{s.threads:8}"
        for samples in (s.prefill, s.generate):
            line += f"{statistics.median(samples):10.1f} [{min(samples):.1f}, {max(samples):.1f}]".rjust(26)
        lines.append(line)
    return "\n".join(lines)


def _run(bench: Path, model: Path, threads: int) -> tuple[float, float]:
    """Tokens a second of prefill and of generation."""
    command = [
        str(bench),
        "-m",
        str(model),
        "-t",
        str(threads),
        "-p",
        str(PROMPT),
        "-n",
        str(GENERATE),
        "-r",
        "1",
        "-o",
        "json",
    ]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    speed = {row["n_gen"] > 0: row["avg_ts"] for row in rows}
    return speed[False], speed[True]
