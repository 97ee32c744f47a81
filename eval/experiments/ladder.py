"""Question: at equal bytes, how much of the damage of llama-quantize's best mix does a planned file have?

One run makes the whole table for a model: calibrates on the beginning of wiki.valid (for error feedback, mixed with as
much of the text that comes with gguf-golf), ranks and controls on other passages of it, plans a ladder of budgets
without and with error feedback, and measures planned files, llama-quantize's mixes and files of one type on wiki.test.
Of mixes and files of one type it measures those that are predicted to be anywhere near the best of their size.
Resumable: whatever is in OUT is not made again.

    python eval/experiments/ladder.py ../shared/models/golf-88m ../shared/data/wikitext-2 OUT
    python eval/experiments/ladder.py ../shared/models/golf-qmoe ../shared/data/wikitext-2 OUT
    python eval/experiments/ladder.py smollm2 ../shared/data/wikitext-2 OUT
"""

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import click

from gguf_golf.calibrate.collect import collect
from gguf_golf.calibrate.split import split
from gguf_golf.control import Control
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.files import write_text
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.journal import Journal, open_journal
from gguf_golf.models import Model, open_model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable
from gguf_golf.plan.budget import n_weights, parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.inputs import load
from gguf_golf.plan.mixes import mixes
from gguf_golf.plan.planner import Planner
from gguf_golf.plan.recipe import Line, Recipe, to_toml
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.job import Job
from gguf_golf.sensitivity.measure import measure
from gguf_golf.texts import CALIBRATION

sys.path.append(str(Path(__file__).parents[1]))
from types_on_real_models import converted, fetched

BITS = "2.2,2.6,3.1,3.7,4.3,5.0"
N_CTX, CALIBRATION_CHUNKS, RANKING_CHUNKS = 512, 32, 1

NEAR = 1.3
"""Mixes and files of one type are measured if predicted to have at most this multiple of the least damage of any
file of their kind that is no larger."""

GIVEN_BACK = ("q4_1", "q5_1", "q4_k", "q5_k")
"""Types that give SmolLM2's weights, which come from a Q4_1 file, back exactly or nearly."""


@dataclass(frozen=True)
class Setup:
    """A model with what it is calibrated and measured on."""

    name: str
    base: Path
    model: Model
    out: Path
    test: TextSettings
    control: TextSettings
    job: Job
    measured: Journal

    def kld(self, name: str, chosen: Mapping[str, QuantType]) -> tuple[int, float, float]:
        """(bytes, KLD, its standard error) on the test text of a file with these types, without error feedback."""
        lines = {t.name: Line(chosen[t.name].name) for t in self.model.tensors if is_quantizable(t)}
        text = to_toml(Recipe(lines))
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        for record in self.measured.records:
            if record["key"] == key:
                return record["bytes"], record["kld"], record["kld_se"]
        recipe, path = self.out / f"{key}.toml", self.out / f"{key}.gguf"
        write_text(recipe, text)
        quantize(self.base, recipe, path, job=self.job)
        kld, kld_se = self.kld_of(path)
        self.measured.add({"key": key, "name": name, "bytes": path.stat().st_size, "kld": kld, "kld_se": kld_se})
        path.unlink()
        recipe.unlink()
        return self.kld(name, chosen)

    def kld_of(self, path: Path) -> tuple[float, float]:
        """KLD on the test text and its standard error, nats."""
        measures = evaluate(self.base, [path], self.test, threads=self.job.threads)[-1].measures
        assert measures is not None and measures.kld_mean is not None
        return measures.kld_mean, measures.kld_se or 0.0


def base_of(model: str, out: Path) -> Path:
    """The baseline in its own precision, or SmolLM2's weights as they come back from the package's Q4_1 file."""
    if model == "smollm2":
        return converted(fetched(out), out / "base.gguf", type_name="f32", job=Job(allow_requantize=True))
    if Path(model).is_file():
        return Path(model)
    if not (out / "base.gguf").exists():
        convert(Path(model), out / "base.gguf")
    return out / "base.gguf"


def planner_of(setup: Setup, text: Path, job: Job, bans: tuple[tuple[str, str], ...]) -> Planner:
    """Rank the tensors, for encoding with error feedback if the job has Hessians."""
    sensitivity = setup.out / f"sensitivity{'-feedback' if job.hessian else ''}.json"
    if not sensitivity.exists():
        measure(
            setup.base,
            sensitivity,
            imatrix_path=job.imatrix,
            hessian_path=job.hessian,
            text_path=text,
            n_chunks=RANKING_CHUNKS,
            threads=setup.job.threads,
        )
    inputs = load(setup.base, sensitivity, job.imatrix, setup.out)
    return Planner(inputs.model, inputs.sensitivity, Constraints(bans=bans), inputs.imatrix, inputs.source)


def uniform(model: Model, body: str, table: str) -> dict[str, QuantType]:
    """Every linear layer in one type, the vocabulary in another."""
    return {
        tensor.name: types.type_for_row(table if tensor.name in EMBEDDINGS else body, tensor.shape[-1])[0]
        for tensor in model.tensors
        if is_quantizable(tensor)
    }


def worth_measuring(planner: Planner, files: Mapping[str, Mapping[str, QuantType]]) -> list[str]:
    """The files that may be the best of their size."""
    predicted = {}
    for name, chosen in files.items():
        choices = planner.choices(chosen)
        if choices is not None:
            size = sum(int(group.item.bytes[i]) for group, i in zip(planner.groups, choices, strict=True))
            predicted[name] = (size, planner.expected(choices))
    return [
        name
        for name, (size, damage) in predicted.items()
        if damage <= NEAR * min(other for at_most, other in predicted.values() if at_most <= size)
    ]


def at_size(files: Sequence[tuple[int, float]], size: int) -> float:
    """KLD of the lower envelope of (bytes, KLD) at a size: log-linear between neighbours, flat beyond the ends."""
    envelope: list[tuple[int, float]] = []
    for n_bytes, kld in sorted(files):
        if not envelope or kld < envelope[-1][1]:
            envelope.append((n_bytes, kld))
    for (low, much), (high, little) in pairwise(envelope):
        if low <= size <= high:
            share = (size - low) / (high - low)
            return math.exp((1 - share) * math.log(much) + share * math.log(little))
    return (envelope[0] if size < envelope[0][0] else envelope[-1])[1]


def ladder(setup: Setup, planner: Planner, kind: str, job: Job, bits: Sequence[float]) -> list[dict]:
    """Plan, control, write and measure every budget."""
    rows = []
    with open_journal(setup.out / f"{kind}.measured", setup.control.to_json()) as journal:
        control = Control(setup.base, planner, setup.control, setup.out, journal, job)
        for bpw in bits:
            size = int(bpw * n_weights(setup.model) / 8)
            path = setup.out / f"{kind}-{bpw:g}.gguf"
            verdict = control.best(parse(str(size), setup.model), path, lambda words: click.echo(words, err=True))
            kld, kld_se = setup.kld_of(path)
            first = verdict.trials[0]
            rows.append(
                {
                    "bpw": bpw,
                    "bytes": path.stat().st_size,
                    "planned": first.plan.recipe.predicted_kld,
                    "predicted": verdict.best.kld,
                    "kld": kld,
                    "kld_se": kld_se,
                    "best": verdict.best.name,
                    "trials": {trial.name: trial.kld for trial in verdict.trials},
                }
            )
            click.echo(json.dumps(rows[-1]), err=True)
    return rows


def table(name: str, results: Mapping[str, list[dict]], mixed: list, single: list) -> str:
    """The ladder in Markdown."""
    lines = [
        f"\n| {name}: bpw of the file | MB | best mix | best of one type, no larger "
        "| predicted | measured | of the mix | predicted / measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, rows in results.items():
        for row in rows:
            mix = at_size(mixed, row["bytes"])
            smaller = [kld for n_bytes, kld in single if n_bytes <= row["bytes"]]
            least = f"{min(smaller):.4f}" if smaller else "-"
            lines.append(
                f"| {row['bpw']:g} {kind} | {row['bytes'] / 1e6:.2f} | {mix:.4f} | {least} | {row['predicted']:.4f} "
                f"| {row['kld']:.4f} +- {row['kld_se']:.4f} | {row['kld'] / mix:.2f} "
                f"| {row['predicted'] / row['kld']:.2f} |"
            )
    return "\n".join(lines)


@click.command()
@click.argument("model")
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bits", default=BITS, show_default=True, help="Bits per weight of the whole file.")
@click.option("--kinds", default="plain,feedback", show_default=True)
@click.option("--control-chunks", default=32, show_default=True)
@click.option("--chunks", default=40, show_default=True, help="Chunks of wiki.test.")
@click.option("--threads", default=2, show_default=True)
def main(
    model: str, wikitext: Path, out: Path, bits: str, kinds: str, control_chunks: int, chunks: int, threads: int
) -> None:
    """Print the table of one model and write it, with all numbers, as NAME.json and NAME.md into OUT."""
    name = Path(model).name.removesuffix(".gguf")
    out.mkdir(parents=True, exist_ok=True)
    base = base_of(model, out)
    valid, test = wikitext / "wiki.valid.raw", TextSettings(wikitext / "wiki.test.raw", N_CTX, chunks)
    parts = split(base, valid, N_CTX, CALIBRATION_CHUNKS, RANKING_CHUNKS + 3, control_chunks)
    ranking, control_text = out / "ranking.txt", out / "control.txt"
    ranking.write_bytes(parts.ranking)
    control_text.write_bytes(parts.control)
    imatrix, mixed, hessian = out / "imatrix.gguf", out / "mixed-imatrix.gguf", out / "hessian.gguf"
    options = {"n_chunks": CALIBRATION_CHUNKS, "threads": threads, "process_output": True}
    if not imatrix.exists():
        collect(base, valid, out=imatrix, **options)
    if not mixed.exists() and "feedback" in kinds:
        collect(base, [valid, CALIBRATION], out=mixed, hessian_path=hessian, **options)
    bans = tuple(("*", each) for each in GIVEN_BACK) if model == "smollm2" else ()
    results: dict[str, list[dict]] = {}
    with open_journal(out / "test.measured", test.to_json()) as measured:
        control = TextSettings(control_text, N_CTX, control_chunks)
        job = Job(imatrix=imatrix, threads=threads, progress=False)
        setup = Setup(name, base, open_model(base), out, test, control, job, measured)
        for kind in kinds.split(","):
            fed = replace(job, imatrix=mixed, hessian=hessian)
            kind_job = fed if kind == "feedback" else job
            planner = planner_of(setup, ranking, kind_job, bans)
            results[kind] = ladder(setup, planner, kind, kind_job, [float(each) for each in bits.split(",")])
        plain = planner_of(setup, ranking, job, ())
        found = mixes(base, has_imatrix=True)
        mixed = [setup.kld(each, found[each])[:2] for each in worth_measuring(plain, found)]
        bodies = [t.name for t in types.ALL.values() if t.is_quantized and t.holds_weights and t.bpw < 7]
        alone = {
            f"{body}, vocabulary {vocabulary}": uniform(setup.model, body, vocabulary)
            for body in bodies
            for vocabulary in dict.fromkeys((body, "q6_k", "tcq4"))
        }
        single = [setup.kld(each, alone[each])[:2] for each in worth_measuring(plain, alone)]
    text = table(name, results, mixed, single)
    write_text(out / f"{name}.md", text + "\n")
    write_text(out / f"{name}.json", json.dumps({"rows": results, "mixes": mixed, "one type": single}, indent=1) + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
