"""The command line: parse, call one function, print. No logic lives here.

Each command imports what it calls when it runs: `--help` and `--version` need not wait for NumPy and SciPy, and the
number of threads of their BLAS can still be set.
"""

import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gguf_golf import __version__, threads
from gguf_golf.errors import GolfError

if TYPE_CHECKING:
    from gguf_golf.fit import Settings
    from gguf_golf.plan.constraints import Constraints


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """The best GGUF that fits in N bytes, and the proof beside it."""


PATH = click.Path(path_type=Path)


def _threads(_context: click.Context, _option: click.Parameter, value: int | None) -> int:
    """The number of threads, for our own, ggml's and, before they are loaded, those of the BLAS libraries."""
    n = threads.resolve(value)
    threads.limit_blas(n)
    return n


THREADS = click.option(
    "--threads",
    type=click.IntRange(min=1),
    callback=_threads,
    metavar="N",
    help="CPU threads; default: all that this process may use.",
)


def _command_line() -> str:
    """What the user typed, for whoever wants to make the results again."""
    return shlex.join(["gguf-golf", *sys.argv[1:]])


@cli.command()
@click.argument("model", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The GGUF to write.")
@click.option("--type", "type_name", default="bf16", show_default=True, help="Type of the linear layers.")
@click.option("--embedding-type", default="q6_k", show_default=True, help="Type of the embedding and the head.")
@click.option("--imatrix", type=PATH, help="Which input channels matter (gguf-golf imatrix).")
@click.option("--hessian", type=PATH, help="Encode TCQ types with error feedback (gguf-golf imatrix --hessian).")
@click.option("--allow-requantize", is_flag=True, help="Take a source that is already quantized.")
@THREADS
@click.option("--gpu", "on_gpu", is_flag=True, help="Encode TCQ types on an NVIDIA GPU; the bytes are the same.")
def convert(
    model: Path,
    out: Path,
    type_name: str,
    embedding_type: str,
    imatrix: Path | None,
    hessian: Path | None,
    allow_requantize: bool,
    threads: int,
    on_gpu: bool,
) -> None:
    """Convert MODEL, a Hugging Face directory or a GGUF, to a GGUF of one type."""
    from gguf_golf.quantize.convert import convert as convert_model

    done = convert_model(
        model,
        out,
        type_name=type_name,
        embedding_type=embedding_type,
        imatrix_path=imatrix,
        hessian_path=hessian,
        allow_requantize=allow_requantize,
        threads=threads,
        on_gpu=on_gpu,
    )
    for note in done.assignment.notes:
        click.echo(f"note: {note}")
    click.echo(f"{out}: {done.written.file_bytes / 1e6:.1f} MB, {done.bpw:.3f} bits per weight")


@cli.group()
def runtime() -> None:
    """The patched llama.cpp underneath: build it, look at it."""


@runtime.command("build")
@click.option("--tools", is_flag=True, help="Also build llama-quantize, -perplexity, -imatrix, -bench, -cli, -server.")
@click.option("--tests", is_flag=True, help="Also build upstream's test-quantize-fns and test-backend-ops.")
@click.option("--amx", is_flag=True, help="Use AMX. Some virtual machines report it and crash in it.")
@click.option("--portable", is_flag=True, help="For other CPUs of this architecture too, not tuned for this one.")
@click.option("--cuda", is_flag=True, help="With the CUDA backend; takes NVIDIA's toolkit.")
@click.option("--metal", is_flag=True, help="With the Metal backend; takes a Mac.")
def runtime_build(*, tools: bool, tests: bool, amx: bool, portable: bool, cuda: bool, metal: bool) -> None:
    """Fetch, patch and build llama.cpp, and link the llama-cpp-python bindings to it."""
    from gguf_golf.runtime.config import Options
    from gguf_golf.runtime.library import make

    options = Options(amx=amx, portable=portable, cuda=cuda, metal=metal)
    components = ("lib", *(["tools"] if tools else []), *(["tests"] if tests else []))
    click.echo(f"runtime ready: {make(options, components)}")


@runtime.command("info")
def runtime_info() -> None:
    """Show the pin, the flags, the CPU's features, the paths and all types."""
    from gguf_golf.runtime.info import describe

    click.echo(describe())


@runtime.command("clean")
def runtime_clean() -> None:
    """Delete what earlier builds left in the cache; the present runtime stays."""
    from gguf_golf.runtime.clean import clean

    click.echo(f"freed {clean() / 1e6:.0f} MB")


@cli.command("imatrix")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", required=True, type=click.Path(path_type=Path), help="Calibration text, UTF-8.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The imatrix, a GGUF file.")
@click.option("--chunks", type=int, help="Use only the first so many chunks of the text.")
@click.option("--ctx", default=512, show_default=True, help="Tokens in a chunk.")
@THREADS
@click.option("--process-output", is_flag=True, help="Collect for the output matrix too.")
@click.option("--hessian", type=PATH, help="Also write the Hessians that error feedback needs (large).")
def imatrix_command(
    model: Path,
    text: Path,
    output: Path,
    chunks: int | None,
    ctx: int,
    threads: int,
    process_output: bool,
    hessian: Path | None,
) -> None:
    """Measure how strongly each input channel of MODEL's linear layers is used (llama.cpp's GGUF imatrix)."""
    from gguf_golf.calibrate import imatrix
    from gguf_golf.calibrate.collect import collect

    collected = collect(
        model,
        text,
        n_ctx=ctx,
        n_chunks=chunks,
        threads=threads,
        process_output=process_output,
        hessian_path=hessian,
    )
    imatrix.write(collected, output)
    click.echo(f"{output}: {len(collected.entries)} tensors over {collected.chunk_count} chunks of {ctx} tokens")


@cli.command("eval")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("quants", nargs=-1, type=click.Path(path_type=Path))
@click.option("--text", type=click.Path(path_type=Path), help="Text to measure on, UTF-8.")
@click.option("--chunks", type=int, help="Use only the first so many chunks of the text.")
@click.option("--ctx", default=512, show_default=True, help="Tokens in a chunk; the second half is scored.")
@click.option("--suite", type=click.Path(path_type=Path), help="What to measure, as a TOML file, instead of --text.")
@THREADS
@click.option("--noise-floor", is_flag=True, help="Also measure BASE against itself with another batch size.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the results there.")
def eval_command(
    base: Path,
    quants: tuple[Path, ...],
    text: Path | None,
    chunks: int | None,
    ctx: int,
    suite: Path | None,
    threads: int,
    noise_floor: bool,
    json_path: Path | None,
) -> None:
    """Measure what QUANTS lost against BASE: perplexity, KL divergence, top-1 agreement; with --suite more.

    BASE is a GGUF, or a file of base log-probabilities made by llama-perplexity --kl-divergence-base.
    """
    from gguf_golf.evaluate.evaluate import run_suite
    from gguf_golf.evaluate.on_text import TextSettings
    from gguf_golf.evaluate.results import document, write_json
    from gguf_golf.evaluate.suite import Suite, read_suite
    from gguf_golf.evaluate.table import render

    if (text is None) == (suite is None):
        raise click.UsageError("give either --text or --suite")
    if suite is not None:
        wanted = read_suite(suite)
    else:
        wanted = Suite(None, (TextSettings(cast(Path, text), ctx, chunks),), noise_floor=noise_floor)
    results = run_suite(wanted, base, quants, threads=threads)
    click.echo(render(results))
    if json_path is not None:
        write_json(document(results, wanted.to_json(), _command_line()), json_path)


@cli.command("run")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-p", "--prompt", required=True, help="What to continue or to answer.")
@click.option("-n", "--n-predict", default=128, show_default=True, help="At most so many tokens.")
@click.option("--temp", default=0.0, show_default=True, help="Sampling temperature; 0 takes the likeliest token.")
@click.option("--seed", default=0, show_default=True)
@click.option("--chat/--raw", default=None, help="With or without the chat template; default: if the file has one.")
@THREADS
def run_command(
    model: Path, prompt: str, n_predict: int, temp: float, seed: int, chat: bool | None, threads: int
) -> None:
    """Generate text with MODEL."""
    from gguf_golf.evaluate.generate import Sampling, run

    for piece in run(str(model), prompt, n_predict, Sampling(temp, seed=seed), chat=chat, threads=threads):
        click.echo(piece, nl=False)
    click.echo()


@cli.command("sensitivity")
@click.argument("model", type=PATH)
@click.option("--imatrix", type=PATH, help="Which input channels matter (gguf-golf imatrix); recommended.")
@click.option("--hessian", type=PATH, help="Plan for error feedback (gguf-golf imatrix --hessian).")
@click.option("--text", type=PATH, help="Text to measure on, UTF-8; none that is used for evaluation.")
@click.option("--chunks", default=4, show_default=True, help="Chunks of the text to measure on.")
@click.option("--ctx", default=512, show_default=True, help="Tokens in a chunk.")
@click.option("--quick", is_flag=True, help="Run no text: only the importance-weighted squared error.")
@click.option("-o", "--out", type=PATH, help="Default: MODEL.sensitivity.json beside MODEL.")
@THREADS
def sensitivity_command(
    model: Path,
    imatrix: Path | None,
    hessian: Path | None,
    text: Path | None,
    chunks: int,
    ctx: int,
    quick: bool,
    out: Path | None,
    threads: int,
) -> None:
    """Measure what an error in each tensor, row, channel and single weight of MODEL costs."""
    from gguf_golf.plan.inputs import default_sensitivity
    from gguf_golf.sensitivity.measure import measure
    from gguf_golf.sensitivity.table import render

    out = out or default_sensitivity(model)
    measured = measure(
        model,
        out,
        imatrix_path=imatrix,
        hessian_path=hessian,
        text_path=text,
        n_ctx=ctx,
        n_chunks=chunks,
        quick=quick,
        threads=threads,
    )
    click.echo(render(measured))
    click.echo(f"wrote {out}")


def constraint_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that plans; they arrive as one argument, `constraints`."""

    @click.option("--stock", is_flag=True, help="Only types that unpatched llama.cpp reads.")
    @click.option("--pin", multiple=True, metavar="PATTERN=TYPE", help="Give these tensors this type.")
    @click.option("--forbid", multiple=True, metavar="PATTERN=TYPE", help="Never give these tensors this type.")
    @click.option("--tie", multiple=True, metavar="PATTERN", help="One type for all of these; # is one layer's number.")
    @click.option("--embedding-floor", metavar="TYPE", help="No fewer bits than TYPE for embedding and head.")
    @click.option("--min-speed", type=float, help="At least so many generated tokens per second, by --bench.")
    @click.option("--bench", type=PATH, help="Speed of each type: the JSON of gguf-golf bench.")
    @wraps(command)
    def wrapper(
        *,
        stock: bool,
        pin: tuple[str, ...],
        forbid: tuple[str, ...],
        tie: tuple[str, ...],
        embedding_floor: str | None,
        min_speed: float | None,
        bench: Path | None,
        **others: object,
    ) -> None:
        from gguf_golf.plan.constraints import Constraints, read_speed

        if (min_speed is None) != (bench is None):
            raise click.UsageError("--min-speed and --bench go together")
        speed = read_speed(bench, min_speed) if bench is not None and min_speed is not None else None
        command(
            constraints=Constraints(stock, _pairs(pin), _pairs(forbid), tie, embedding_floor, speed),
            **others,
        )

    return wrapper


def _pairs(values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [value.partition("=") for value in values]
    for pattern, equals, type_name in pairs:
        if not (pattern and equals and type_name):
            raise click.UsageError(f"{pattern}: write PATTERN=TYPE, such as 'blk.*.attn_v.weight=tcq4'")
    return tuple((pattern, type_name) for pattern, _, type_name in pairs)


@cli.command("plan")
@click.argument("model", type=PATH)
@click.option("--budget", help="1.2GB, 700MiB, 2.7bpw, or 'fits in 8 GB with 8192 tokens of context'.")
@click.option("--bpw", type=float, help="Bits per weight, the same as --budget Nbpw.")
@click.option("--sensitivity", "sensitivity_path", type=PATH, help="Default: MODEL.sensitivity.json.")
@click.option("--imatrix", type=PATH, help="Default: the one that the sensitivity was measured with.")
@click.option("--explain", "explained", is_flag=True, help="Print what every further byte would buy.")
@click.option("-o", "--out", type=PATH, help="The recipe to write, TOML; left out, it is only described.")
@constraint_options
def plan_command(
    *,
    model: Path,
    budget: str | None,
    bpw: float | None,
    sensitivity_path: Path | None,
    imatrix: Path | None,
    explained: bool,
    out: Path | None,
    constraints: "Constraints",
) -> None:
    """Choose a type for every tensor of MODEL: the least predicted damage within a budget."""
    from gguf_golf.plan.make import explain, make_recipe, summary

    if (budget is None) == (bpw is None):
        raise click.UsageError("give either --budget or --bpw")
    opened, made = make_recipe(
        model,
        budget or f"{bpw}bpw",
        out,
        sensitivity_path=sensitivity_path,
        imatrix_path=imatrix,
        constraints=constraints,
    )
    if explained:
        click.echo(explain(opened, made))
    click.echo(summary(made))
    if out is not None:
        click.echo(f"wrote {out}; next: gguf-golf quantize {model} --recipe {out} -o OUT.gguf")


@cli.command("quantize")
@click.argument("model", type=PATH)
@click.option("--recipe", type=PATH, required=True, help="Which type each tensor takes (gguf-golf plan).")
@click.option("-o", "--out", type=PATH, required=True, help="The GGUF to write.")
@click.option("--imatrix", type=PATH, help="Where the recipe's imatrix lies, if not where the recipe says.")
@click.option("--hessian", type=PATH, help="Encode TCQ types with error feedback (gguf-golf imatrix --hessian).")
@click.option("--allow-requantize", is_flag=True, help="Take a source that is already quantized.")
@THREADS
@click.option("--gpu", "on_gpu", is_flag=True, help="Encode TCQ types on an NVIDIA GPU; the bytes are the same.")
def quantize_command(
    model: Path,
    recipe: Path,
    out: Path,
    imatrix: Path | None,
    hessian: Path | None,
    allow_requantize: bool,
    threads: int,
    on_gpu: bool,
) -> None:
    """Write the GGUF of MODEL that a recipe describes."""
    from gguf_golf.quantize.from_recipe import quantize

    done = quantize(
        model,
        recipe,
        out,
        imatrix_path=imatrix,
        hessian_path=hessian,
        allow_requantize=allow_requantize,
        threads=threads,
        on_gpu=on_gpu,
    )
    for note in done.notes:
        click.echo(f"note: {note}")
    click.echo(f"{out}: {done.written.file_bytes:,} bytes")


@cli.command("inspect")
@click.argument("file", type=PATH)
def inspect_command(file: Path) -> None:
    """Show the recipe, hashes and types of a GGUF file."""
    from gguf_golf.quantize.inspect import inspect

    click.echo(inspect(file))


def fit_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `fit` and `sweep` beside the budget; they arrive as one argument, `settings`."""

    @click.option("--text", type=PATH, help="Calibration text; default: the one that comes with gguf-golf.")
    @click.option("--eval-text", type=PATH, help="Text to measure on; default: the one that comes with gguf-golf.")
    @click.option("--chunks", default=40, show_default=True, help="Chunks of the text to measure on.")
    @click.option("--feedback", is_flag=True, help="Error feedback for TCQ types; Hessians take disk space.")
    @THREADS
    @wraps(command)
    def wrapper(
        *,
        text: Path | None,
        eval_text: Path | None,
        chunks: int,
        feedback: bool,
        threads: int,
        **others: object,
    ) -> None:
        from gguf_golf.fit import Settings

        settings = Settings(text, eval_text, eval_chunks=chunks, feedback=feedback, threads=threads)
        command(settings=settings, **others)

    return wrapper


@cli.command("fit")
@click.argument("model", type=PATH)
@click.option("--budget", required=True, help="1.2GB, 2.7bpw, or 'fits in 8 GB with 8192 tokens of context'.")
@click.option("-o", "--out", type=PATH, required=True, help="The GGUF to write; its page lies beside it.")
@fit_options
@constraint_options
def fit_command(*, model: Path, budget: str, out: Path, settings: "Settings", constraints: "Constraints") -> None:
    """The best GGUF of MODEL that fits: convert, calibrate, rank, plan, quantize, evaluate, report."""
    from gguf_golf.fit import describe, fit

    click.echo(describe(fit(model, [budget], [out], settings, constraints, click.echo, _command_line())))
    click.echo(f"report: {out.with_suffix('.html')}")


@cli.command("sweep")
@click.argument("model", type=PATH)
@click.option("--budgets", required=True, help="Comma-separated, such as 2.25bpw,2.75bpw,40MB.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder for the files, the results and the page.")
@fit_options
@constraint_options
def sweep_command(*, model: Path, budgets: str, out: Path, settings: "Settings", constraints: "Constraints") -> None:
    """A whole ladder of files of MODEL, one for each budget, and one report on all of them."""
    from gguf_golf.fit import describe, fit

    wanted = [budget.strip() for budget in budgets.split(",")]
    outs = [out / f"{model.stem}-{budget.replace(' ', '-')}.gguf" for budget in wanted]
    click.echo(describe(fit(model, wanted, outs, settings, constraints, click.echo, _command_line())))
    click.echo(f"report: {outs[0].with_suffix('.html')}")


@cli.command("report")
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option("-o", "--out", type=PATH, default=Path("report.html"), show_default=True, help="The page to write.")
@click.option("--markdown", type=PATH, help="Also write it as Markdown, for a model card.")
@click.option("--csv", type=PATH, help="Also write every number as CSV.")
def report_command(results: tuple[Path, ...], out: Path, markdown: Path | None, csv: Path | None) -> None:
    """Say in one page which file of RESULTS (JSON of gguf-golf eval) to take, and how sure that is."""
    from gguf_golf.report import write_report

    write_report(results, out, markdown=markdown, csv=csv)
    click.echo(f"report: {out}")


@cli.command("bench")
@click.argument("types", nargs=-1)
@click.option("--rounds", default=5, show_default=True, help="Measure everything so often, in turn.")
@click.option("--models", is_flag=True, help="Also whole synthetic models, through llama-bench.")
@click.option("--json", "json_path", type=PATH, help="Write the results there.")
def bench_command(types: tuple[str, ...], rounds: int, models: bool, json_path: Path | None) -> None:
    """Measure how fast TYPES (default: all) multiply and encode on this CPU, one thread."""
    from gguf_golf.bench.models import MODELS
    from gguf_golf.bench.run import bench

    bench(types, rounds, tuple(MODELS) if models else (), json_path, click.echo)


@cli.command("demo")
@click.option("-o", "--out", type=PATH, default=Path("demo-out"), show_default=True, help="Folder for the files.")
def demo_command(out: Path) -> None:
    """Calibrate, convert and measure the embedded model at several types; write a report."""
    from gguf_golf.demo import demo

    click.echo(f"report: {demo(out, click.echo)}")


def main() -> None:
    """Run the command line; an error that a user can mend becomes one line on stderr and exit code 1."""
    try:
        cli()
    except (GolfError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
