"""How fast the types are on this machine's CPU: encoding, and multiplying in llama.cpp.

    make bench

Encoding is `ggml_quantize_chunk` on normal random weights, on all cores. Decoding is llama-bench (tokens a second,
its mean and standard deviation) on the embedded demo model, which is too small for absolute numbers to mean much:
compare types of one run with each other.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from gguf_golf.formats.types import get
from gguf_golf.quantize.convert import convert
from gguf_golf.runtime import ggml, tool

TYPES = ("q2_k", "tcq2", "q3_k", "tcq3", "q4_k", "tcq4")
MODEL = Path(__file__).parents[1] / "gguf_golf" / "data" / "golf-tiny"
ROWS, COLUMNS = 1024, 1024


def encode_rate(name: str) -> float:
    """Million weights a second, the median of three runs."""
    rows = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), dtype=np.float32)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ggml.quantize(get(name).id, rows, np.ones(COLUMNS, np.float32))
        seconds.append(time.perf_counter() - start)
    return rows.size / float(np.median(seconds)) / 1e6


def token_rates(path: Path) -> dict[str, str]:
    """llama-bench's tokens a second for a prompt of 512 and for generating 64, as `mean ± deviation`."""
    command = [tool("llama-bench"), "-m", path, "-p", "512", "-n", "64", "-o", "json"]
    runs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {("pp" if run["n_prompt"] else "tg"): f"{run['avg_ts']:.0f} ± {run['stddev_ts']:.0f}" for run in runs}


if __name__ == "__main__":
    print(f"{'type':<8}{'bpw':>7}{'encode Mw/s':>13}{'pp512 t/s':>15}{'tg64 t/s':>15}")
    with tempfile.TemporaryDirectory() as folder:
        for name in TYPES:
            path = Path(folder) / f"{name}.gguf"
            convert(MODEL, path, type_name=name, progress=False)
            rates = token_rates(path)
            print(f"{name:<8}{get(name).bpw:>7.3f}{encode_rate(name):>13.2f}{rates['pp']:>15}{rates['tg']:>15}")
