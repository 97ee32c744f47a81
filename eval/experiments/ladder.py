"""Question: at equal bytes, how much of llama-quantize's damage does a planned file have?

Plans, writes and measures a ladder of budgets, and compares each file with the best of llama-quantize's own mixes that
has no fewer bytes (log-linear between neighbouring mixes). Resumable: finished files and finished chunks are kept.

    python eval/experiments/ladder.py BASE.gguf SENSITIVITY.json TEXT OUT_FOLDER --mixes golf-88m --label plain
"""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click

from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.plan.budget import parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.inputs import load
from gguf_golf.plan.make import write_text
from gguf_golf.plan.planner import Planner
from gguf_golf.quantize.from_recipe import quantize

# (MB, KLD) of llama-quantize's mixes with the same imatrix: golf-88m file sizes, wikitext-2 test, 40 x 512;
# SmolLM2-135M-Instruct tensor sizes, 16 x 512
MIXES = {
    "golf-88m": {
        "IQ2_XS": (31.1, 0.255),
        "IQ2_S": (32.5, 0.195),
        "IQ2_M": (34.5, 0.135),
        "Q2_K_S": (35.9, 0.182),
        "IQ3_XXS": (37.8, 0.091),
        "Q2_K": (38.4, 0.130),
        "IQ3_S": (43.2, 0.0505),
        "Q3_K_S": (43.2, 0.0616),
        "Q3_K_M": (47.0, 0.0344),
        "IQ4_XS": (50.9, 0.0155),
        "Q4_K_S": (53.6, 0.0125),
        "Q4_K_M": (56.0, 0.0100),
        "Q5_K_M": (64.1, 0.0036),
        "Q6_K": (72.7, 0.0021),
    },
    "smollm2": {
        "IQ2_XS": (84.6, 0.447),
        "Q2_K": (88.2, 0.293),
        "IQ3_M": (90.2, 0.133),
        "IQ4_XS": (90.9, 0.107),
        "Q4_K_M": (105.5, 0.037),
    },
}


def best_mix(mixes: dict[str, tuple[float, float]], megabytes: float) -> float:
    """KLD of the lower envelope of the mixes at a size, log-linear between neighbours; the end's beyond its ends."""
    envelope: list[tuple[float, float]] = []
    for size, kld in sorted(mixes.values()):
        if not envelope or kld < envelope[-1][1]:
            envelope.append((size, kld))
    for (low, much), (high, little) in pairwise(envelope):
        if low <= megabytes <= high:
            share = (megabytes - low) / (high - low)
            return math.exp((1 - share) * math.log(much) + share * math.log(little))
    return (envelope[0] if megabytes < envelope[0][0] else envelope[-1])[1]


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("sensitivity", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--mixes", type=click.Choice(list(MIXES)), required=True)
@click.option("--budgets", default="31,36,41,46,51,56", show_default=True, help="MB, comma-separated.")
@click.option("--chunks", default=40, show_default=True)
@click.option("--stock", is_flag=True)
@click.option("--proxy", is_flag=True, help="Plan by the cheap proxy, to see what measuring buys.")
@click.option("--label", required=True, help="Names the files and the results.")
@click.option("--threads", default=2, show_default=True)
def main(
    base: Path,
    sensitivity: Path,
    text: Path,
    out: Path,
    mixes: str,
    budgets: str,
    chunks: int,
    stock: bool,
    proxy: bool,
    label: str,
    threads: int,
) -> None:
    """Plan, write and measure; print a Markdown table and write LABEL.json into OUT."""
    out.mkdir(parents=True, exist_ok=True)
    inputs = load(base, sensitivity, None, out)
    known = inputs.sensitivity
    if proxy:
        tensors = [replace(t, coefficient=1e-6 * t.proxy, exponent=1.0) for t in known.tensors]
        known = replace(known, tensors=tensors)
    planner = Planner(inputs.model, known, Constraints(stock=stock), inputs.imatrix, inputs.source)
    settings = TextSettings(text, n_chunks=chunks)
    rows = []
    for size in budgets.split(","):
        plan = planner.plan(parse(f"{size}MB", inputs.model))
        recipe, path = out / f"{label}-{size}.toml", out / f"{label}-{size}.gguf"
        if not path.exists() or not recipe.exists() or recipe.read_text() != plan.text:
            write_text(recipe, plan.text)
            quantize(base, recipe, path, threads=threads)
        assert path.stat().st_size == plan.file_bytes, "the predicted size is not the size"
        measures = evaluate(base, [path], settings, threads=threads)[-1].measures
        assert measures is not None and measures.kld_mean is not None
        mix = best_mix(MIXES[mixes], plan.file_bytes / 1e6)
        rows.append(
            {
                "budget_mb": float(size),
                "bytes": plan.file_bytes,
                "predicted": plan.recipe.predicted_kld,
                "kld": measures.kld_mean,
                "kld_se": measures.kld_se,
                "mix": mix,
                "ratio": measures.kld_mean / mix,
            }
        )
        print(rows[-1], flush=True)
        write_text(out / f"{label}.json", json.dumps(rows, indent=1) + "\n")
    print("\n| MB | predicted KLD | measured KLD | best mix | ratio |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['bytes'] / 1e6:.2f} | {row['predicted']:.4f} | {row['kld']:.4f} +- {row['kld_se']:.4f} "
            f"| {row['mix']:.4f} | {row['ratio']:.2f} |"
        )


if __name__ == "__main__":
    main()
