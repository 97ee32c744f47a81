"""Logits and speed of one model over several servers of `gguf-golf rpc-server`, against this process.

gguf-golf rpc-server 127.0.0.1:50052 --threads 1
python eval/experiments/rpc.py small.gguf TEXT 127.0.0.1:50052,127.0.0.1:50053
"""

import argparse
import time
from pathlib import Path

import numpy as np

from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.runtime import rpc
from gguf_golf.runtime.session import LoadedModel

N_TOKENS, N_GENERATED = 128, 32


def main() -> None:
    """The same tokens here and over the servers: largest difference of a logit, tokens per second."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("servers")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    here, speeds_here = logits(given, {"mapped": True})
    rpc.use(given.servers)
    rpc.connect()
    there, speeds_there = logits(given, {})
    print(f"{given.model.name} over {given.servers}: largest difference {np.abs(here - there).max():.3g}")
    for what, speeds in (("here", speeds_here), ("there", speeds_there)):
        print(f"{what}: prompt {speeds[0]:.1f}, generation {speeds[1]:.1f} tokens/s")


def logits(given: argparse.Namespace, options: dict[str, bool]) -> tuple[np.ndarray, tuple[float, float]]:
    """Logits f32 [N_TOKENS, n_vocab] of the text's first tokens, and tokens per second at once and one by one."""
    with LoadedModel(given.model, **options) as model:
        tokens = with_bos(model, text_chunks(model, given.text, N_TOKENS, 1)[0])
        positions, all_of_them = np.arange(N_TOKENS, dtype=np.int32), np.ones(N_TOKENS, bool)
        with model.context(N_TOKENS + N_GENERATED, threads=given.threads) as context:
            context.decode(tokens, positions, all_of_them)  # weights arrive, pages are touched
            context.clear()
            started = time.monotonic()
            found = context.decode(tokens, positions, all_of_them).copy()
            prompt = N_TOKENS / (time.monotonic() - started)
            started, token = time.monotonic(), int(found[-1].argmax())
            for position in range(N_TOKENS, N_TOKENS + N_GENERATED):
                last = context.decode(np.array([token], np.int32), np.array([position], np.int32), np.ones(1, bool))
                token = int(last[0].argmax())
            return found, (prompt, N_GENERATED / (time.monotonic() - started))


if __name__ == "__main__":
    main()
