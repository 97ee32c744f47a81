"""One command that makes the table by which any public model is compared, so that whoever has the weights can check it.

    python eval/protocol.py CHECKPOINT -o OUT [--text TEXT] [--also FOLDER] [--engine ENGINE:PATH]

Measured against the checkpoint in its own precision, all on one text with one context and the same chunks: each of our
types, llama-quantize's mixes, a planned file of the size of each mix (`gguf-golf fit`), the GGUFs of others that lie in
a folder, and the same model in other engines. The mixes and our files are calibrated on the same chunks of a text. The
table gives bytes of three kinds (tensors, file, download after zstd -19) and the standard error of every mean.
OUT keeps the files, results.json, table.md, table.csv and report.html; a run that was stopped resumes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from types_on_real_models import converted, mixed

from gguf_golf import texts, threads
from gguf_golf.calibrate.collect import collect
from gguf_golf.command import command_line
from gguf_golf.errors import GolfError
from gguf_golf.evaluate.engine import open_peers
from gguf_golf.evaluate.evaluate import run_suite
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.results import ModelResult, document, write_json
from gguf_golf.evaluate.suite import Suite
from gguf_golf.fit import Settings, fit
from gguf_golf.formats import tcq
from gguf_golf.models import open_model
from gguf_golf.plan.constraints import Constraints
from gguf_golf.quantize.job import Job
from gguf_golf.quantize.prepare import source_precision
from gguf_golf.report import write_report

TYPES = ",".join(f"tcq{rate}" for rate in sorted(tcq.RATES, reverse=True))
MIXES = "Q2_K,IQ3_XXS,Q3_K_M,IQ4_XS,Q4_K_M,Q5_K_M"
HEADINGS = (
    *("file", "tensors MB", "file MB", "download MB", "bpw", "PPL", "ln PPL ratio"),
    *("KLD", "median KLD", "99% KLD", "same top token, %"),
)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--text", type=FILE, default=texts.EVALUATION, help="Text to measure on.  [default: the embedded one]")
@click.option("--calibration", type=FILE, default=texts.CALIBRATION, help="Another text.  [default: the embedded one]")
@click.option("--ctx", default=512, show_default=True, help="Tokens of a chunk.")
@click.option("--chunks", default=40, show_default=True, help="Chunks to measure on.")
@click.option("--calibration-chunks", default=32, show_default=True)
@click.option("--types", "type_names", default=TYPES, show_default=True, help="One file of each.")
@click.option("--mixes", default=MIXES, show_default=True, help="llama-quantize's mixes.")
@click.option("--also", type=FOLDER, help="A folder of other GGUFs of this model.")
@click.option("--engine", "engines", multiple=True, help="The model in another engine (docs/evaluation.md).")
@click.option("--threads", "n_threads", type=int, help="Default: all cores.")
def protocol(
    checkpoint: Path,
    out: Path,
    text: Path,
    calibration: Path,
    ctx: int,
    chunks: int,
    calibration_chunks: int,
    type_names: str,
    mixes: str,
    also: Path | None,
    engines: tuple[str, ...],
    n_threads: int | None,
) -> None:
    """Make the files that are not there, measure all, and write the table."""
    n_threads = threads.resolve(n_threads)
    out.mkdir(parents=True, exist_ok=True)
    name = checkpoint.resolve().name
    base = converted(checkpoint, out / f"{name}.gguf", type_name=source_precision(open_model(checkpoint)))
    imatrix = out / "imatrix.gguf"
    if not imatrix.exists():
        click.echo(f"calibrating on {calibration_chunks} chunks of {calibration.name}")
        collect(
            base,
            calibration,
            n_ctx=ctx,
            n_chunks=calibration_chunks,
            process_output=True,
            threads=n_threads,
            out=imatrix,
        )
    job = Job(imatrix=imatrix, threads=n_threads)
    ours = [
        converted(checkpoint, out / f"{name}-{each}.gguf", type_name=each, embedding_type="auto", job=job)
        for each in type_names.split(",")
    ]
    theirs = [mixed(base, out / f"{name}-{mix}.gguf", mix, imatrix) for mix in mixes.split(",")]
    planned = [out / f"{file.stem}-planned.gguf" for file in theirs]
    settings = Settings(
        text=calibration,
        eval_text=text,
        n_ctx=ctx,
        calibration_chunks=calibration_chunks,
        eval_chunks=chunks,
        threads=n_threads,
    )
    fit(base, [str(file.stat().st_size) for file in theirs], planned, settings, Constraints(), click.echo)
    others = sorted(also.glob("*.gguf")) if also else []
    suite = Suite(None, (TextSettings(text, ctx, chunks),), noise_floor=True, zstd=True)
    with open_peers(engines, n_threads) as peers:
        results = run_suite(suite, base, [*ours, *planned, *theirs, *others], peers=peers, threads=n_threads)
    write_json(document(results, suite.to_json(), command_line("python eval/protocol.py")), out / "results.json")
    write_report(out / "results.json", out / "report.html", csv=out / "table.csv")
    (out / "table.md").write_text(table(results), encoding="utf-8")
    click.echo(table(results))


def table(results: Sequence[ModelResult]) -> str:
    """A Markdown table, the largest file first; ± is one standard error by a block bootstrap over the chunks."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    for result in sorted(results, key=lambda r: (r.role == "quant", -r.bytes)):
        m = result.measures
        assert m is not None
        tensors = f"{result.bpw * result.parameters / 8e6:.1f}" if result.tensors else ""
        download = "" if result.bytes_zstd is None else f"{result.bytes_zstd / 1e6:.1f}"
        top1, top1_se = (None if value is None else 100 * value for value in (m.top1, m.top1_se))
        cells = [
            result.file if result.role == "quant" else f"{result.file} ({result.role})",
            *(tensors, f"{result.bytes / 1e6:.1f}", download, f"{result.bpw:.2f}", number(m.ppl, m.ppl_se, 2)),
            *(number(m.ln_ppl_ratio, m.ln_ppl_ratio_se, 4), number(m.kld_mean, m.kld_se, 4)),
            *(number(m.kld_p50, None, 4), number(m.kld_p99, None, 3), number(top1, top1_se, 1)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def number(value: float | None, error: float | None, digits: int) -> str:
    """A number with its error; empty where it was not measured."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


if __name__ == "__main__":
    try:
        protocol()
    except GolfError as error:
        sys.exit(f"error: {error}")
