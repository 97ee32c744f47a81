"""Question: at equal bytes, how much of the damage of llama-quantize's best mix does a planned file have?

For each model: calibrates on the beginning of wiki.valid (for error feedback, mixed with as much of the text that comes
with gguf-golf), ranks and controls on other passages of it, plans every budget on its own as `gguf-golf fit` does,
without and with error feedback, and measures the planned files and llama-quantize's mixes on wiki.test. Steps run side
by side, as many as have a core for each of their threads; whatever is in OUT is not made again.

    python eval/experiments/ladder.py run OUT ../shared/data/wikitext-2 ../shared/models/golf-88m smollm2 --cores 2
    python eval/experiments/ladder.py table OUT

MODEL is a folder, a GGUF, or smollm2, which is fetched. A GGUF that is quantized stands for the weights that come back
from it; types that give those back exactly or nearly (GIVEN_BACK) are left out, in plans and in mixes.
"""

import json
import math
import os
import subprocess
import sys
import time
from bisect import insort
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from itertools import count, pairwise
from pathlib import Path

import click

from gguf_golf.calibrate.collect import collect
from gguf_golf.calibrate.split import split
from gguf_golf.control import Control
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.varentropy import transfer
from gguf_golf.files import write_text
from gguf_golf.formats import quant_types
from gguf_golf.journal import open_journal
from gguf_golf.models import open_model
from gguf_golf.models.roles import is_quantizable
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
from types_on_real_models import fetched

N_CTX, CALIBRATION_CHUNKS, RANKING_CHUNKS = 512, 32, 1

GIVEN_BACK = ("q4_1", "q5_1", "q4_k", "q5_k")
"""Types that give weights which come from a Q4_1 file back exactly or nearly."""

KINDS = ("plain", "feedback")


@dataclass(frozen=True)
class Settings:
    """What all steps of a run share."""

    wikitext: str
    bits: tuple[float, ...]
    kinds: tuple[str, ...]
    control_chunks: int
    chunks: int
    device: str


class Case:
    """One model of a run: its files, and the steps that make them."""

    def __init__(self, folder: Path, settings: Settings, threads: int) -> None:
        self.folder, self.settings, self.threads = folder, settings, threads
        self.rows = folder / "rows"
        self.base, self.imatrix = folder / "base.gguf", folder / "imatrix.gguf"
        self.mixed, self.hessian = folder / "mixed-imatrix.gguf", folder / "hessian.gguf"
        self.ranking, self.control = folder / "ranking.txt", folder / "control.txt"

    def job(self, kind: str) -> Job:
        """How files are encoded."""
        device, encoded = self.settings.device, self.folder / "encoded"
        made = Job(imatrix=self.imatrix, device=device, threads=self.threads, encoded=encoded, progress=False)
        return replace(made, imatrix=self.mixed, hessian=self.hessian) if kind == "feedback" else made

    @property
    def valid(self) -> Path:
        """The text that calibration, ranking and control share."""
        return Path(self.settings.wikitext) / "wiki.valid.raw"

    @property
    def test(self) -> TextSettings:
        """What files are measured on."""
        return TextSettings(Path(self.settings.wikitext) / "wiki.test.raw", N_CTX, self.settings.chunks)

    @property
    def controlled(self) -> TextSettings:
        """What plans are controlled on."""
        return TextSettings(self.control, N_CTX, self.settings.control_chunks)

    def prepare(self, model: str) -> None:
        """The baseline, the texts, and llama-quantize's mixes."""
        if (self.folder / "case.json").exists():
            return
        source = fetched(self.folder) if model == "smollm2" else Path(model)
        matrices = {tensor.source_type for tensor in open_model(source, allow_requantize=True).tensors}
        requantized = not matrices <= {"F32", "F16", "BF16"}
        if not self.base.exists():
            convert(
                source,
                self.base,
                type_name="f32" if requantized else None,
                job=Job(allow_requantize=requantized, keep_lattice=False, progress=False),
            )
        chunks = self.settings.control_chunks
        parts = split(self.base, self.valid, N_CTX, CALIBRATION_CHUNKS, RANKING_CHUNKS + 3, chunks)
        self.ranking.write_bytes(parts.ranking)
        self.control.write_bytes(parts.control)
        bans = GIVEN_BACK if requantized else ()
        found = {
            name: {tensor: quant_type.name for tensor, quant_type in chosen.items()}
            for name, chosen in mixes(self.base, has_imatrix=True).items()
            if not any(quant_type.name in bans for quant_type in chosen.values())
        }
        write_text(self.folder / "case.json", json.dumps({"bans": bans, "mixes": found}))

    def original(self, text: str) -> None:
        """The baseline's own measures on the control text or on the test text."""
        evaluate(self.base, [], self.controlled if text == "control" else self.test, threads=self.threads)

    def calibrate(self, kind: str) -> None:
        """The imatrix, and for error feedback the Hessians."""
        job = self.job(kind)
        assert job.imatrix is not None
        if not all(path.exists() for path in (job.imatrix, job.hessian) if path is not None):
            collect(
                self.base,
                [self.valid, CALIBRATION] if kind == "feedback" else self.valid,
                n_chunks=CALIBRATION_CHUNKS,
                threads=self.threads,
                process_output=True,
                out=job.imatrix,
                hessian_path=job.hessian,
            )

    def case(self) -> dict:
        """What `prepare` found: the types that are left out, and the types of each mix."""
        return json.loads((self.folder / "case.json").read_text(encoding="utf-8"))

    def rank(self, kind: str) -> None:
        """The sensitivity file, for encoding with error feedback if that is the kind."""
        job, out = self.job(kind), self._sensitivity(kind)
        if out.exists():
            return
        measure(
            self.base,
            out,
            imatrix_path=job.imatrix,
            hessian_path=job.hessian,
            text_path=self.ranking,
            n_chunks=RANKING_CHUNKS,
            threads=self.threads,
        )

    def plan(self, kind: str, bpw: str) -> dict:
        """Plan, control, write and measure one budget: bits per weight of the whole file."""
        job, folder = self.job(kind), self.folder / f"{kind}-{bpw}"
        folder.mkdir(exist_ok=True)
        inputs = load(self.base, self._sensitivity(kind), job.imatrix, folder)
        bans = tuple(("*", name) for name in self.case()["bans"])
        planner = Planner(inputs.model, inputs.sensitivity, Constraints(bans=bans), inputs.imatrix, inputs.source)
        size = int(float(bpw) * n_weights(inputs.model) / 8)
        path = folder / "best.gguf"
        with open_journal(folder / "measured", self.controlled.to_json()) as journal:
            control = Control(self.base, planner, self.controlled, folder, journal, job)
            verdict = control.best(parse(str(size), inputs.model), path, lambda words: click.echo(words, err=True))
        kld, kld_se = self._kld(path)
        row = {
            "bpw": float(bpw),
            "bytes": path.stat().st_size,
            "planned": verdict.trials[0].plan.recipe.predicted_kld,
            "controlled": verdict.best.kld,
            "predicted": verdict.best.kld * transfer(self.base, self.controlled, self.test, self.threads),
            "kld": kld,
            "kld_se": kld_se,
            "best": verdict.best.name,
            "trials": {trial.name: trial.kld for trial in verdict.trials},
        }
        path.unlink()
        return row

    def mix(self, name: str) -> dict:
        """Write and measure one of llama-quantize's mixes, with the same imatrix."""
        chosen = self.case()["mixes"][name]
        lines = {
            tensor.name: Line(chosen[tensor.name]) for tensor in open_model(self.base).tensors if is_quantizable(tensor)
        }
        recipe, path = self.folder / f"{name}.toml", self.folder / f"{name}.gguf"
        write_text(recipe, to_toml(Recipe(lines)))
        quantize(self.base, recipe, path, job=self.job("plain"))
        kld, kld_se = self._kld(path)
        row = {"name": name, "bytes": path.stat().st_size, "kld": kld, "kld_se": kld_se}
        path.unlink()
        return row

    def worth_measuring(self) -> list[str]:
        """The mixes that lie between the budgets or next to them, the nearest to a budget first."""
        tensors = [tensor for tensor in open_model(self.base).tensors if is_quantizable(tensor)]
        weights = sum(math.prod(tensor.shape) for tensor in tensors)
        bpw = {
            name: sum(math.prod(t.shape) * quant_types.get(chosen[t.name]).bpw for t in tensors) / weights
            for name, chosen in self.case()["mixes"].items()
        }
        near = [name for name in bpw if bpw[name] <= 1.15 * max(self.settings.bits)]
        return sorted(near, key=lambda name: min(abs(bpw[name] - bits) for bits in self.settings.bits))

    def _sensitivity(self, kind: str) -> Path:
        return self.folder / f"sensitivity-{kind}.json"

    def _kld(self, path: Path) -> tuple[float, float]:
        """KLD on the test text and its standard error, nats."""
        measures = evaluate(self.base, [path], self.test, threads=self.threads)[-1].measures
        assert measures is not None and measures.kld_mean is not None
        return measures.kld_mean, measures.kld_se or 0.0


def name_of(model: str) -> str:
    """What a model is called in the table."""
    return Path(model).name.removesuffix(".gguf")


@dataclass(frozen=True, order=True)
class Step:
    """A step of a model, in a process of its own; those of low `rank` come first."""

    rank: int
    serial: int
    threads: int
    model: str
    words: tuple[str, ...]


class Run:
    """All steps of all models, as many at a time as their threads have cores."""

    def __init__(self, out: Path, settings: Settings, models: Sequence[str], cores: int) -> None:
        self._out, self._settings, self._cores, self._serial = out, settings, cores, count()
        self._started = time.monotonic()
        self._todo = [self._step(0, 1, model, "prepare", model) for model in models]

    def run(self) -> list[str]:
        """Run everything; returns the steps that failed."""
        running: dict[Future[bool], Step] = {}
        failed = []
        with ThreadPoolExecutor(self._cores) as pool:
            while self._todo or running:
                free = self._cores - sum(step.threads for step in running.values())
                if (step := next((step for step in self._todo if step.threads <= free), None)) is not None:
                    self._todo.remove(step)
                    running[pool.submit(self._execute, step)] = step
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    if future.result():
                        for each in self._following(step):
                            insort(self._todo, each)
                    else:
                        failed.append(f"{name_of(step.model)} {' '.join(step.words)}")
        return failed

    def _step(self, rank: int, threads: int, model: str, *words: str) -> Step:
        return Step(rank, next(self._serial), min(threads, self._cores), model, words)

    def _following(self, step: Step) -> list[Step]:
        match step.words:
            case ("prepare", _):
                calibrations = [
                    self._step(1, 4, step.model, "calibrate", kind) for kind in reversed(self._settings.kinds)
                ]
                return calibrations + [self._step(1, 2, step.model, "original", text) for text in ("control", "test")]
            case ("calibrate", kind):
                following = [self._step(2, 4, step.model, "rank", kind)]
                if kind == "plain":
                    case = Case(self._out / name_of(step.model), self._settings, 1)
                    following += [self._step(4, 1, step.model, "mix", name) for name in case.worth_measuring()]
                return following
            case ("rank", kind):
                return [self._step(3, 1, step.model, "plan", kind, f"{bpw:g}") for bpw in self._settings.bits]
        return []

    def _execute(self, step: Step) -> bool:
        variables = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
        arguments = [str(self._out), name_of(step.model), *step.words, "--threads", str(step.threads)]
        done = subprocess.run(
            [sys.executable, __file__, "step", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | dict.fromkeys(variables, str(step.threads)),
        )
        ended = "done" if done.returncode == 0 else f"FAILED: {done.stderr.strip()[-300:]}"
        click.echo(f"{time.monotonic() - self._started:5.0f} s {name_of(step.model)} {' '.join(step.words)}: {ended}")
        return done.returncode == 0


def at_size(files: Sequence[tuple[int, float]], size: int) -> float | None:
    """KLD of the lower envelope of (bytes, KLD) at a size: log-linear between neighbours, flat above the largest; None
    below the smallest."""
    envelope: list[tuple[int, float]] = []
    for n_bytes, kld in sorted(files):
        if not envelope or kld < envelope[-1][1]:
            envelope.append((n_bytes, kld))
    for (low, much), (high, little) in pairwise(envelope):
        if low <= size <= high:
            share = (size - low) / (high - low)
            return math.exp((1 - share) * math.log(much) + share * math.log(little))
    return envelope[-1][1] if envelope and size >= envelope[-1][0] else None


def collected(out: Path) -> dict[str, dict]:
    """All rows that are done, by model: {"plain": rows, "feedback": rows, "mixes": rows}."""
    found: dict[str, dict] = {}
    for case in sorted(path.parent for path in out.glob("*/rows")):
        rows = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(case.glob("rows/*.json"))}
        by_kind = {
            kind: sorted((r for stem, r in rows.items() if stem.startswith(f"plan-{kind}-")), key=lambda r: r["bpw"])
            for kind in KINDS
        }
        mixed = sorted((r for stem, r in rows.items() if stem.startswith("mix-")), key=lambda r: r["bytes"])
        found[case.name] = {**by_kind, "mixes": mixed}
    return found


def table(results: Mapping[str, dict]) -> str:
    """The ladders in Markdown, as in docs/planning.md."""
    lines = [
        "| model | bpw of the file | MB | mix | plan / one type | predicted | measured | p/m | of the mix "
        "| feedback: predicted | measured | p/m | of the mix |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, found in results.items():
        mixed = [(row["bytes"], row["kld"]) for row in found["mixes"]]
        fed = {row["bpw"]: row for row in found["feedback"]}
        for row in found["plain"]:
            single = [kld for name, kld in row["trials"].items() if name.startswith("uniform")]
            mix = at_size(mixed, row["bytes"])
            cells = [model, f"{row['bpw']:g}", f"{row['bytes'] / 1e6:.1f}", "-" if mix is None else f"{mix:.4f}"]
            cells.append(f"{row['controlled'] / min(single):.2f}" if single else "-")
            cells += _measured(row, mixed)
            cells += _measured(fed[row["bpw"]], mixed) if row["bpw"] in fed else ["-"] * 4
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _measured(row: Mapping, mixed: Sequence[tuple[int, float]]) -> list[str]:
    mix = at_size(mixed, row["bytes"])
    return [
        f"{row['predicted']:.4f}",
        f"{row['kld']:.4f} ± {row['kld_se']:.4f}",
        f"{row['predicted'] / row['kld']:.2f}",
        "-" if mix is None else f"{row['kld'] / mix:.2f}",
    ]


@click.group()
def main() -> None:
    """Ladders of budgets against llama-quantize's mixes."""


@main.command("run")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.argument("models", nargs=-1, required=True)
@click.option("--bits", default="2.2,2.6,3.1,3.7,4.3,5.0", show_default=True, help="Bits per weight of whole files.")
@click.option("--kinds", default=",".join(KINDS), show_default=True)
@click.option("--control-chunks", default=16, show_default=True)
@click.option("--chunks", default=40, show_default=True, help="Chunks of wiki.test.")
@click.option("--device", default="cpu", show_default=True, help="Where TCQ types are encoded.")
@click.option("--cores", default=1, show_default=True, help="Threads at a time, of all steps together.")
def run_command(
    out: Path,
    wikitext: Path,
    models: tuple[str, ...],
    bits: str,
    kinds: str,
    control_chunks: int,
    chunks: int,
    device: str,
    cores: int,
) -> None:
    """Make everything that OUT lacks, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        str(wikitext.resolve()),
        tuple(float(each) for each in bits.split(",")),
        tuple(kinds.split(",")),
        control_chunks,
        chunks,
        device,
    )
    write_text(out / "settings.json", json.dumps(asdict(settings)))
    failed = Run(out, settings, models, cores).run()
    click.echo(table(collected(out)))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


@main.command("step")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("name")
@click.argument("words", nargs=-1, required=True)
@click.option("--threads", default=1)
def step_command(out: Path, name: str, words: tuple[str, ...], threads: int) -> None:
    """One step of `run`; its row, if it has one, goes to OUT/NAME/rows."""
    given = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    settings = Settings(**{**given, "bits": tuple(given["bits"]), "kinds": tuple(given["kinds"])})
    case = Case(out / name, settings, threads)
    case.rows.mkdir(parents=True, exist_ok=True)
    step, *arguments = words
    together = {"prepare": case.prepare, "original": case.original, "calibrate": case.calibrate, "rank": case.rank}
    if step in together:
        together[step](*arguments)
    else:
        done = case.rows / f"{'-'.join(words)}.json"
        if not done.exists():
            row = case.plan(*arguments) if step == "plan" else case.mix(*arguments)
            write_text(done, json.dumps(row) + "\n")


@main.command("table")
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write all numbers.")
def table_command(results: Path, json_path: Path | None) -> None:
    """Print the table of what is in the folder, or in the JSON, RESULTS."""
    found = collected(results) if results.is_dir() else json.loads(results.read_text(encoding="utf-8"))
    if json_path is not None:
        write_text(json_path, json.dumps(found, indent=1) + "\n")
    click.echo(table(found), nl=False)


if __name__ == "__main__":
    main()
