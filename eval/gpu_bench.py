"""Decode and prefill speed of TCQ and mainline types on a GPU, on models of real shapes and random weights.

    python eval/gpu_bench.py --bin BUILD/bin --work /dev/shm/bench --out gpu.json

Needs llama-bench of a runtime built for the GPU (`gguf-golf runtime build --cuda`), and disk (best in memory) for the
largest model of one shape in all its types: 21 GB for 8b. Weights are random bits with sane scales: speed does not
depend on their values. Types where 256 does not divide the rows become what `--type` would make of them.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from gguf_golf.bench.synthetic import SHAPES, write_model

TYPES = ("tcq2", "q2_k", "tcq3", "q3_k", "tcq4", "q4_k")


@dataclass(frozen=True)
class Run:
    """One llama-bench run: tokens/s of prefill and of decoding (medians of its repetitions), and the GPU's name."""

    prefill: float
    decode: float
    gpu: str


def run_bench(binary: Path, model: Path, prompt: int, generate: int) -> Run:
    """Runs llama-bench with every layer on the GPU."""
    command = [
        str(binary),
        "-m",
        str(model),
        "-p",
        str(prompt),
        "-n",
        str(generate),
        "-r",
        "5",
        "-ngl",
        "99",
        "-o",
        "json",
    ]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    speed = {row["n_gen"] > 0: statistics.median(row["samples_ts"]) for row in rows}
    return Run(speed[False], speed[True], rows[0]["gpu_info"])


def main() -> None:
    """Parses the arguments, benchmarks every shape and type in interleaved rounds, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="folder of llama-bench")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models")
    parser.add_argument("--out", type=Path, required=True, help="JSON of all results")
    parser.add_argument("--shapes", nargs="+", default=["golf-88m", "smollm2-135m", "8b"], choices=SHAPES)
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--copy-rate", type=float, help="the card's copy rate in TB/s, bytes read plus bytes written")
    args = parser.parse_args()

    args.work.mkdir(parents=True, exist_ok=True)
    results = []
    for shape in args.shapes:
        paths = {name: args.work / f"{shape}-{name}.gguf" for name in args.types}
        sizes = {name: write_model(path, SHAPES[shape], name) for name, path in paths.items()}
        runs: dict[str, list[Run]] = {name: [] for name in args.types}
        for _ in range(args.rounds):
            for name in args.types:
                runs[name].append(run_bench(args.bin / "llama-bench", paths[name], args.prompt, args.generate))
        for name in args.types:
            prefill = statistics.median(run.prefill for run in runs[name])
            decode = statistics.median(run.decode for run in runs[name])
            rate = decode * sizes[name] / 1e12
            share = f"{rate / args.copy_rate:7.1%}" if args.copy_rate else ""
            print(
                f"{shape:14} {name:6} {sizes[name] / 1e6:8.1f} MB  decode {decode:8.1f} tok/s  "
                f"weights {rate:6.3f} TB/s {share}  prefill {prefill:9.1f} tok/s  {runs[name][0].gpu}",
                flush=True,
            )
            results.append({"shape": shape, "type": name, "bytes": sizes[name], "decode": decode, "prefill": prefill,
                            "runs": [vars(run) for run in runs[name]]})  # fmt: skip
            paths[name].unlink()
        args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
