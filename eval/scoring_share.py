"""How much of an evaluation is spent inside llama.cpp: python eval/scoring_share.py BASE.gguf QUANT.gguf TEXT [THREADS]

Starts from an empty cache, so that loading, hashing, scoring and writing the log-probabilities all count. Run it on an
idle machine: threads that wait for each other spin inside llama.cpp, and would flatter it on a busy one.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gguf_golf.evaluate import evaluate as evaluation
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.runtime.session import Context

CHUNKS = 10


def main(base: str, quant: str, text: str, threads: str | None = None) -> None:
    """Print seconds inside llama_decode, all seconds, and their ratio."""
    inside = 0.0
    decode = Context.decode

    def timed(*arguments: Any) -> Any:
        nonlocal inside
        begun = time.perf_counter()
        logits = decode(*arguments)
        inside += time.perf_counter() - begun
        return logits

    with tempfile.TemporaryDirectory() as folder:
        Context.decode = timed  # type: ignore[method-assign]
        evaluation.cache_dir = lambda: Path(folder)
        begun = time.perf_counter()
        evaluation.evaluate(
            base, [quant], TextSettings(Path(text), n_chunks=CHUNKS), threads=int(threads) if threads else None
        )
        wall = time.perf_counter() - begun
    print(f"{inside:.1f} s of {wall:.1f} s inside llama.cpp: {100 * inside / wall:.1f}%")


if __name__ == "__main__":
    main(*sys.argv[1:5])
