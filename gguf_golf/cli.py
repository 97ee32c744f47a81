"""The command line: parse, call one function, print. No logic lives here.

Each command imports what it calls when it runs: `--help` and `--version` need not wait for NumPy and SciPy, and the
number of threads of their BLAS can still be set.
"""

import json
import secrets
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gguf_golf import __version__, threads
from gguf_golf.command import MODEL, PATH, Group, Output, command_line, output
from gguf_golf.errors import DataError, GolfError, printable

if TYPE_CHECKING:
    from gguf_golf.fit import Settings
    from gguf_golf.plan.constraints import Constraints
    from gguf_golf.quantize.job import Job
    from gguf_golf.quantize.prepare import Prepared


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gguf-golf")
def cli() -> None:
    """The best GGUF that fits in N bytes, and the proof beside it.

    MODEL is a Hugging Face folder, a GGUF file (any part of a split one), or the id of a model on the Hugging Face hub.
    """


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
    help="CPU threads.  [default: all that this process may use]",
)
FORCE = click.option("--force", is_flag=True, help="Replace a file that gguf-golf did not write.")
CTX = click.option(
    "--ctx", type=click.IntRange(min=2), default=512, show_default=True, metavar="N", help="Tokens per chunk."
)

KEEP_LATTICE = click.option(
    "--keep-lattice/--no-keep-lattice",
    default=True,
    show_default=True,
    help="Store a tensor exactly if its weights are those of a quantized type of no more bits.",
)

STORE = "gguf-golf-work/steps"


def executor_options(command: Callable[..., None]) -> Callable[..., None]:
    """--executor, --cores and --store: the command's work goes to the executor that they name."""

    @click.option(
        "--executor",
        default="local",
        show_default=True,
        metavar="EXECUTOR",
        help="Where to work: local, joblib[:WORKERS], dask://HOST:8786, ray, ray://HOST:10001.",
    )
    @click.option(
        "--cores",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Cores of each step of an executor.",
    )
    @click.option(
        "--store",
        default=STORE,
        show_default=True,
        metavar="FOLDER|URL",
        help="Where workers leave their results: a folder that all of them see, or a URL such as s3://bucket/prefix.",
    )
    @wraps(command)
    def wrapper(*, executor: str, cores: int, store: str, **others: object) -> None:
        from gguf_golf.steps import executing, open_executor

        if executor == "local" and (cores != 1 or store != STORE):
            raise click.UsageError("--cores and --store are for an --executor; without one, give --threads")
        with open_executor(executor, store, cores) or nullcontext() as opened, executing(opened):
            command(**others)

    return wrapper


def rpc_option(command: Callable[..., None]) -> Callable[..., None]:
    """--rpc: models that the command loads compute on the servers that it names."""

    @click.option(
        "--rpc",
        "servers",
        metavar="HOST:PORT,...",
        help="Compute on these machines, each of which runs `gguf-golf rpc-server`.",
    )
    @wraps(command)
    def wrapper(*, servers: str | None, **others: object) -> None:
        if servers is not None:
            if others.get("executor", "local") != "local":
                raise click.UsageError("--rpc servers serve one process: give them without --executor")
            from gguf_golf.runtime.rpc import use

            use(servers)
        command(**others)

    return wrapper


DRY_RUN = click.option("--dry-run", is_flag=True, help="Say types, bytes and time; write nothing.")
VRAM = click.option(
    "--vram",
    metavar="SIZE",
    help="Also say what stays on the CPU with a GPU of SIZE, '6GB' or '6GB with 8192 tokens of q8_0 context', as "
    "llama.cpp's arguments.",
)


def encoding_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that encodes; they arrive as one argument, `job`."""

    @click.option("--imatrix", type=PATH, help="Which input channels matter (gguf-golf imatrix).")
    @click.option("--hessian", type=PATH, help="Encode TCQ types with error feedback (gguf-golf imatrix --hessian).")
    @click.option("--allow-requantize", is_flag=True, help="Accept a source that is already quantized.")
    @click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Let Python code that the checkpoint brings run, if converting needs it.",
    )
    @click.option(
        "--device",
        default="cpu",
        show_default=True,
        metavar="cpu|cuda",
        help="Where to encode TCQ types; the bytes are the same.",
    )
    @click.option("--gpu", is_flag=True, help="The same as --device cuda.")
    @FORCE
    @THREADS
    @wraps(command)
    def wrapper(
        *,
        imatrix: Path | None,
        hessian: Path | None,
        allow_requantize: bool,
        trust_remote_code: bool,
        device: str,
        gpu: bool,
        force: bool,
        threads: int,
        **others: object,
    ) -> None:
        from gguf_golf.quantize.job import Job

        device = "cuda" if gpu else device
        job = Job(imatrix, hessian, device, threads, allow_requantize, trust_remote_code, force)
        command(job=job, **others)

    return wrapper


@cli.command("convert")
@click.argument("model", type=MODEL)
@click.option("-o", "--out", type=PATH, required=True, help="The GGUF to write.")
@click.option(
    "--type", "type_name", metavar="TYPE", help="Type of the linear layers.  [default: the source's precision]"
)
@click.option(
    "--embedding-type",
    default="auto",
    show_default=True,
    metavar="TYPE",
    help="Type of the embedding and the head; auto: one rate above the layers' for a head, theirs for an embedding.",
)
@click.option("--verify", is_flag=True, help="Compare the file with MODEL as transformers runs it (gguf-golf verify).")
@KEEP_LATTICE
@DRY_RUN
@encoding_options
def convert_command(
    *,
    model: Path,
    out: Path,
    type_name: str | None,
    embedding_type: str,
    verify: bool,
    keep_lattice: bool,
    dry_run: bool,
    job: "Job",
) -> None:
    """Convert MODEL to a GGUF whose linear layers all have one type.

    \b
    gguf-golf convert ./MyModel -o base.gguf
    gguf-golf convert base.gguf -o small.gguf --type tcq3 --imatrix imatrix.gguf
    """
    from gguf_golf.quantize.convert import convert
    from gguf_golf.quantize.prepare import by_type

    job = replace(job, keep_lattice=keep_lattice)
    if dry_run:
        _forecast(by_type(model, type_name, embedding_type, out, job))
        return
    done = convert(model, out, type_name=type_name, embedding_type=embedding_type, job=job)
    for note in done.assignment.notes:
        output().say(f"note: {note}")
    verdict = None
    if verify:
        from gguf_golf.verify import verify as compare

        verdict = compare(model, out, threads=job.threads, trust_remote_code=job.trust_remote_code)
        output().say(str(verdict))
    output().result(
        f"{out}: {done.written.file_bytes / 1e6:.1f} MB, {done.bpw:.3f} bits per weight",
        {
            "schema": "gguf-golf/convert",
            "file": str(out),
            "bytes": done.written.file_bytes,
            "bpw": done.bpw,
            "types": {name: quant_type.name for name, quant_type in done.assignment.types.items()},
            "notes": done.assignment.notes,
            "verify": verdict and verdict.to_json(),
        },
    )
    if verdict is not None and not verdict.right:
        raise DataError(f"{out} is not the model of {model}")


@cli.command("verify")
@click.argument("checkpoint", type=MODEL)
@click.argument("file", metavar="FILE.gguf", type=MODEL)
@click.option("--tokens", "n_tokens", default=256, show_default=True, metavar="N", help="Compare N positions.")
@click.option("--trust-remote-code", is_flag=True, help="Let Python code that the checkpoint brings run.")
@THREADS
def verify_command(*, checkpoint: Path, file: Path, n_tokens: int, trust_remote_code: bool, threads: int) -> None:
    """Compare FILE.gguf with CHECKPOINT, a Hugging Face folder, as transformers runs it.

    Tokens of awkward texts and logits of N positions; the exit status is 1 where they differ. It takes the [hf] extra.

    \b
    gguf-golf verify ./MyModel base.gguf
    """
    from gguf_golf.verify import verify

    verdict = verify(checkpoint, file, n_tokens=n_tokens, threads=threads, trust_remote_code=trust_remote_code)
    output().result(str(verdict), {"schema": "gguf-golf/verify"} | verdict.to_json())
    if not verdict.right:
        raise DataError(f"{file} is not the model of {checkpoint}")


@cli.group("runtime")
def runtime_group() -> None:
    """Build and inspect the patched llama.cpp that everything runs on."""


@runtime_group.command("build")
@click.option("--tools", is_flag=True, help="Also build llama-quantize, -perplexity, -imatrix, -bench, -cli, -server.")
@click.option("--tests", is_flag=True, help="Also build upstream's test-quantize-fns and test-backend-ops.")
@click.option("--amx", is_flag=True, help="Use AMX. Some virtual machines report it and crash in it.")
@click.option(
    "--portable", is_flag=True, help="Run on any CPU of this architecture, instead of being tuned for this one."
)
@click.option("--cuda", is_flag=True, help="Include the CUDA backend; needs NVIDIA's toolkit.")
@click.option("--metal", is_flag=True, help="Include the Metal backend; needs a Mac.")
@click.option("--vulkan", is_flag=True, help="Include the Vulkan backend; needs glslc and Vulkan's headers.")
@click.option("--rpc", is_flag=True, help="Also build the RPC backend, which --rpc and rpc-server build if need be.")
def runtime_build_command(
    *, tools: bool, tests: bool, amx: bool, portable: bool, cuda: bool, metal: bool, vulkan: bool, rpc: bool
) -> None:
    """Fetch, patch and build llama.cpp, and link the llama-cpp-python bindings to it."""
    from gguf_golf.runtime.config import Options
    from gguf_golf.runtime.library import make

    options = Options(amx=amx, portable=portable, cuda=cuda, metal=metal, vulkan=vulkan)
    components = tuple(name for name, on in {"lib": True, "tools": tools, "tests": tests, "rpc": rpc}.items() if on)
    folder = make(options, components)
    output().result(f"runtime ready: {folder}", {"schema": "gguf-golf/runtime", "folder": str(folder)})


@runtime_group.command("info")
def runtime_info_command() -> None:
    """Show the pin, the flags, the CPU's features, the paths and all types."""
    from gguf_golf.runtime.info import describe

    output().result(*describe())


@cli.group("cache")
def cache_group() -> None:
    """Show and clean what is kept for later runs: builds, converted checkpoints, evaluations."""


@cache_group.command("show")
def cache_show_command() -> None:
    """List the cache's entries with their sizes, the last used first."""
    from gguf_golf.runtime.clean import show

    text, document = show()
    output().result(text, document)


@cache_group.command("clean")
@click.argument("kinds", nargs=-1, type=click.Choice(["builds", "converted", "eval", "leftovers"]))
@click.option("--max-size", metavar="SIZE", help="Stop at this size of the cache, such as 20GB.")
@click.option("--older-than", type=click.FloatRange(min=0), default=0, metavar="DAYS", help="Keep what was used since.")
def cache_clean_command(*, kinds: tuple[str, ...], max_size: str | None, older_than: float) -> None:
    """Delete entries of these KINDS (default: all), the least recently used first; the present runtime stays.

    \b
    gguf-golf cache clean builds
    gguf-golf cache clean --max-size 20GB
    """
    from gguf_golf.runtime.clean import KINDS, clean
    from gguf_golf.sizes import parse_size

    freed = clean(kinds or KINDS, parse_size(max_size or "0"), older_than * 86400)
    output().result(f"freed {freed / 1e6:,.1f} MB", {"schema": "gguf-golf/cache-clean", "freed_bytes": freed})


@cli.group("data")
def data_group() -> None:
    """List and fetch the data that suites measure on."""


@data_group.command("list")
def data_list_command() -> None:
    """List the data sets: whether they are here, their licence, what they are."""
    from gguf_golf.datasets import DATASETS, data_dir, is_here

    width = max(map(len, DATASETS))
    lines = [
        f"{name:<{width}}  {'here' if is_here(name) else '-':<4}  {each.what}; {each.licence}"
        for name, each in DATASETS.items()
    ]
    output().result(
        "\n".join([*lines, f"folder: {data_dir()}"]),
        {
            "schema": "gguf-golf/data",
            "folder": str(data_dir()),
            "sets": {name: {"here": is_here(name), **asdict(each)} for name, each in DATASETS.items()},
        },
    )


@data_group.command("fetch")
@click.argument("names", nargs=-1, required=True)
@click.option("--from", "source", type=PATH, help="A folder that holds the files, instead of downloading them.")
def data_fetch_command(names: tuple[str, ...], source: Path | None) -> None:
    """Fetch data sets by name; files with another hash than the known one are refused.

    \b
    gguf-golf data fetch wikitext-2
    """
    from gguf_golf.datasets import DATASETS, fetch

    folders = {name: fetch(name, source) for name in names}
    lines = [f"{name}: {folder} (licence: {DATASETS[name].licence})" for name, folder in folders.items()]
    output().result(
        "\n".join(lines), {"schema": "gguf-golf/data", "folders": {name: str(path) for name, path in folders.items()}}
    )


@cli.command("imatrix")
@click.argument("model", type=MODEL)
@click.option(
    "--text",
    "texts",
    type=PATH,
    multiple=True,
    help="Calibration text, UTF-8; several are mixed.  [default: the one that comes with gguf-golf]",
)
@click.option("-o", "--out", type=PATH, required=True, help="The imatrix to write, a GGUF in llama.cpp's format.")
@click.option("--chunks", type=click.IntRange(min=1), metavar="N", help="Use only the first N chunks of each text.")
@CTX
@THREADS
@click.option("--process-output", is_flag=True, help="Collect for the output matrix too.")
@click.option("--hessian", type=PATH, help="Also write the Hessians that error feedback needs (large).")
@FORCE
def imatrix_command(
    model: Path,
    texts: tuple[Path, ...],
    out: Path,
    chunks: int | None,
    ctx: int,
    threads: int,
    process_output: bool,
    hessian: Path | None,
    force: bool,
) -> None:
    """Measure how strongly each input channel of MODEL's linear layers is used.

    \b
    gguf-golf imatrix base.gguf --text calibration.txt -o imatrix.gguf --chunks 64
    """
    from gguf_golf.calibrate.collect import collect
    from gguf_golf.quantize.cached import as_gguf
    from gguf_golf.texts import CALIBRATION

    collected = collect(
        as_gguf(model),
        texts or (CALIBRATION,),
        n_ctx=ctx,
        n_chunks=chunks,
        threads=threads,
        process_output=process_output,
        out=out,
        hessian_path=hessian,
        force=force,
    )
    for note in collected.notes():
        output().say(f"note: {note}")
    output().result(
        f"{out}: {len(collected.entries)} tensors over {collected.chunk_count} chunks of {ctx} tokens",
        {
            "schema": "gguf-golf/imatrix",
            "file": str(out),
            "tensors": len(collected.entries),
            "chunks": collected.chunk_count,
            "n_ctx": ctx,
        },
    )


@cli.command("eval")
@click.argument("base", type=MODEL)
@click.argument("quants", nargs=-1, type=MODEL)
@click.option("--text", type=PATH, help="Text to measure on, UTF-8.  [default: the one that comes with gguf-golf]")
@click.option("--chunks", type=click.IntRange(min=1), metavar="N", help="Use only the first N chunks of the text.")
@CTX
@click.option("--suite", type=PATH, help="What to measure, as a TOML file, instead of --text.")
@THREADS
@click.option("--noise-floor", is_flag=True, help="Also measure BASE against itself with another batch size.")
@click.option(
    "--engine",
    "peers",
    multiple=True,
    metavar="ENGINE:PATH",
    help="Also judge a model in another engine: transformers, or a Python module.",
)
@rpc_option
@executor_options
def eval_command(
    base: Path,
    quants: tuple[Path, ...],
    text: Path | None,
    chunks: int | None,
    ctx: int,
    suite: Path | None,
    threads: int,
    noise_floor: bool,
    peers: tuple[str, ...],
) -> None:
    """Measure what QUANTS lost against BASE: perplexity, KL divergence, top-1 agreement; with --suite more.

    BASE is MODEL, or a file of base log-probabilities made by llama-perplexity --kl-divergence-base. In each chunk of a
    text, the second half is scored.

    \b
    gguf-golf eval base.gguf small.gguf --text test.txt --chunks 40 --json results.json
    gguf-golf eval base.gguf small.gguf --engine transformers:./MyModel-AWQ
    """
    from gguf_golf import texts
    from gguf_golf.evaluate.engine import open_peers
    from gguf_golf.evaluate.evaluate import run_suite
    from gguf_golf.evaluate.on_text import TextSettings
    from gguf_golf.evaluate.results import document
    from gguf_golf.evaluate.suite import Suite, read_suite
    from gguf_golf.evaluate.table import results_table
    from gguf_golf.quantize.cached import as_gguf

    if text is not None and suite is not None:
        raise click.UsageError("give either --text or --suite")
    if suite is not None:
        given = click.get_current_context().get_parameter_source
        if any(given(name) is click.core.ParameterSource.COMMANDLINE for name in ("chunks", "ctx")):
            raise click.UsageError("with --suite, n_chunks and n_ctx stand in the suite, not in --chunks and --ctx")
        wanted = read_suite(suite)
        wanted = replace(wanted, noise_floor=wanted.noise_floor or noise_floor)
    else:
        wanted = Suite(None, (TextSettings(text or texts.EVALUATION, ctx, chunks),), noise_floor=noise_floor)
    with open_peers(peers, threads) as opened:
        files = [as_gguf(quant) for quant in quants]
        results = run_suite(wanted, as_gguf(base), files, peers=opened, threads=threads)
    output().result(results_table(results), document(results, wanted.to_json(), command_line()))


@cli.command("run")
@click.argument("model", type=MODEL)
@click.option("-p", "--prompt", help="What to continue or to answer.")
@click.option(
    "-f",
    "--file",
    type=PATH,
    help="Read the prompt from a file; - is standard input.",
)
@click.option("-n", "--n-predict", default=128, show_default=True, metavar="N", help="At most N tokens.")
@click.option(
    "--temp", default=0.0, show_default=True, help="Sampling temperature; 0 always takes the most likely token."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the sampling.")
@click.option(
    "--chat/--raw", default=None, help="With or without the chat template.  [default: with it, if the file has one]"
)
@THREADS
@rpc_option
def run_command(
    model: Path,
    prompt: str | None,
    file: Path | None,
    n_predict: int,
    temp: float,
    seed: int,
    chat: bool | None,
    threads: int,
) -> None:
    """Generate text with MODEL, once. Without -p and -f the prompt is read from standard input.

    \b
    gguf-golf run small.gguf -p "Write a haiku about trellises."
    gguf-golf run small.gguf -f letter.txt -n 400
    """
    from gguf_golf.evaluate.generate import Sampling, run
    from gguf_golf.quantize.cached import as_gguf

    if prompt is not None and file is not None:
        raise click.UsageError("give either -p or -f")
    if prompt is None:
        if file is None and sys.stdin.isatty():
            raise click.UsageError("there is no prompt: give one with -p, -f or on standard input")
        with click.open_file(str(file or "-"), encoding="utf-8") as stream:
            prompt = stream.read()
    pieces = []
    for piece in run(str(as_gguf(model)), prompt, n_predict, Sampling(temp, seed=seed), chat=chat, threads=threads):
        pieces.append(piece)
        if output().json_path is None:
            click.echo(printable(piece), nl=False)
    text = "" if output().json_path is None else "".join(pieces)
    output().result(text, {"schema": "gguf-golf/run", "prompt": prompt, "text": "".join(pieces)})


@cli.command("chat", with_json=False)
@click.argument("model", type=MODEL)
@click.option("--system", help="The system message.")
@click.option("-n", "--n-predict", default=1024, show_default=True, metavar="N", help="At most N tokens per answer.")
@click.option(
    "--temp", default=0.7, show_default=True, help="Sampling temperature; 0 always takes the most likely token."
)
@click.option("--seed", type=int, help="Seed of the sampling.  [default: another one each time]")
@click.option(
    "--ctx",
    type=click.IntRange(min=64),
    metavar="N",
    help="Tokens of context.  [default: as many as the model was trained for, at most 8192]",
)
@THREADS
@rpc_option
def chat_command(
    model: Path, system: str | None, n_predict: int, temp: float, seed: int | None, ctx: int | None, threads: int
) -> None:
    """Talk with MODEL. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.

    \b
    gguf-golf chat small.gguf --system "Answer in one sentence."
    """
    from gguf_golf.evaluate.generate import Sampling
    from gguf_golf.quantize.cached import as_gguf
    from gguf_golf.use.chat import Conversation, chat, terminal_reader

    sampling = Sampling(temp, seed=secrets.randbits(32) if seed is None else seed)
    with Conversation(as_gguf(model), system=system, sampling=sampling, n_ctx=ctx, threads=threads) as conversation:
        if sys.stdin.isatty():
            output().say(f"{model.name}, {conversation.n_ctx} tokens of context; /help lists the commands")
            chat(conversation, n_predict, terminal_reader(), _write)
        else:
            chat(conversation, n_predict, lambda _prompt: input(), _write)


def _write(text: str) -> None:
    click.echo(text, nl=False)


@cli.command("serve", with_json=False)
@click.argument("model", type=MODEL)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. Others need an --api-key.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--api-key", envvar="LLAMA_API_KEY", help="Answer only to whoever sends this key.  [env: LLAMA_API_KEY]")
@click.option("--ctx", type=click.IntRange(min=64), metavar="N", help="Tokens of context, shared by all conversations.")
@THREADS
@rpc_option
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def serve_command(
    model: Path, host: str, port: int, api_key: str | None, ctx: int | None, threads: int, extra: tuple[str, ...]
) -> None:
    """Serve MODEL: a chat page for the browser, and OpenAI-compatible endpoints for programs.

    It is llama.cpp's llama-server; EXTRA, after --, are options of its own. It speaks HTTP only: for TLS put a proxy in
    front of it.

    \b
    gguf-golf serve small.gguf
    gguf-golf serve small.gguf --host 0.0.0.0 --api-key SECRET -- --parallel 4
    """
    from gguf_golf.quantize.cached import as_gguf
    from gguf_golf.use.serve import serve

    serve(
        as_gguf(model),
        name=model.resolve().name.removesuffix(".gguf"),
        host=host,
        port=port,
        api_key=api_key,
        n_ctx=ctx,
        threads=threads,
        extra=extra,
        say=output().say,
    )


@cli.command("rpc-server", with_json=False)
@click.argument("address", metavar="[HOST:PORT]", default="127.0.0.1:50052")
@THREADS
def rpc_server_command(address: str, threads: int) -> None:
    """Offer this machine to the --rpc of others: its GPUs, or its CPU where the runtime was built for none.

    It serves one client at a time, at 127.0.0.1:50052 unless told otherwise. Whoever reaches that address may use
    it, and can crash it: keep it to a network that you trust.

    \b
    gguf-golf rpc-server 10.0.0.7:50052
    """
    from gguf_golf.runtime.rpc import serve

    serve(address, threads, output().say)


@cli.command(
    "tool",
    with_json=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def tool_command(name: str, arguments: tuple[str, ...]) -> None:
    """Run one of the patched llama.cpp's programs: NAME is llama-bench, or just bench.

    \b
    gguf-golf tool bench -m small.gguf
    gguf-golf tool quantize --help
    """
    from gguf_golf.use.serve import find_tool, run_program

    run_program([str(find_tool(name, output().say)), *arguments])


@cli.command("sensitivity")
@click.argument("model", type=MODEL)
@click.option("--imatrix", type=PATH, help="Which input channels matter (gguf-golf imatrix); recommended.")
@click.option("--hessian", type=PATH, help="Plan for error feedback (gguf-golf imatrix --hessian).")
@click.option(
    "--text",
    type=PATH,
    help="Text to measure on, UTF-8; not one that is used for evaluation.  "
    "[default: the calibration text that comes with gguf-golf]",
)
@click.option(
    "--chunks", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Use the first N chunks."
)
@CTX
@click.option("--quick", is_flag=True, help="Run no text: only the importance-weighted squared error.")
@click.option("-o", "--out", type=PATH, help="The file to write.  [default: MODEL.sensitivity.json beside MODEL]")
@THREADS
@executor_options
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
    """Measure what an error in each tensor, row, channel and single weight of MODEL costs.

    \b
    gguf-golf sensitivity base.gguf --imatrix imatrix.gguf --text calibration.txt
    """
    from gguf_golf import texts
    from gguf_golf.plan.inputs import default_sensitivity
    from gguf_golf.quantize.cached import as_gguf
    from gguf_golf.sensitivity.measure import measure
    from gguf_golf.sensitivity.table import render

    out = out or default_sensitivity(model)
    measured = measure(
        as_gguf(model),
        out,
        imatrix_path=imatrix,
        hessian_path=hessian,
        text_path=None if quick else text or texts.CALIBRATION,
        n_ctx=ctx,
        n_chunks=chunks,
        quick=quick,
        threads=threads,
    )
    output().say(f"wrote {out}")
    output().result(render(measured), json.loads(out.read_text(encoding="utf-8")))


def constraint_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that plans; they arrive as one argument, `constraints`."""

    @click.option(
        "--stock",
        is_flag=False,
        flag_value="b4000",
        metavar="[BUILD]",
        help="Only types that unpatched llama.cpp reads since BUILD (b4000; 'newest' is the pinned one).",
    )
    @click.option("--pin", multiple=True, metavar="PATTERN=TYPE", help="Give these tensors this type.")
    @click.option("--forbid", multiple=True, metavar="PATTERN=TYPE", help="Never give these tensors this type.")
    @click.option(
        "--tie", multiple=True, metavar="PATTERN", help="One type for all of these; # stands for one layer's number."
    )
    @click.option("--embedding-floor", metavar="TYPE", help="Give the embedding and the head no fewer bits than TYPE.")
    @click.option("--no-protected-rows", is_flag=True, help="Store no residual of the most frequent tokens' rows.")
    @click.option("--min-speed", type=float, metavar="N", help="Generate at least N tokens per second, by --bench.")
    @click.option("--bench", type=PATH, help="Speed of each type: the JSON of gguf-golf bench.")
    @wraps(command)
    def wrapper(
        *,
        stock: str | None,
        pin: tuple[str, ...],
        forbid: tuple[str, ...],
        tie: tuple[str, ...],
        embedding_floor: str | None,
        no_protected_rows: bool,
        min_speed: float | None,
        bench: Path | None,
        **others: object,
    ) -> None:
        from gguf_golf.plan.constraints import Constraints, read_speed, stock_build

        if (min_speed is None) != (bench is None):
            raise click.UsageError("--min-speed and --bench go together")
        speed = read_speed(bench, min_speed) if bench is not None and min_speed is not None else None
        command(
            constraints=Constraints(
                stock_build(stock), _pairs(pin), _pairs(forbid), tie, embedding_floor, speed, not no_protected_rows
            ),
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
@click.argument("model", type=MODEL)
@click.option("--budget", help="1.2GB, 700MiB, 2.7bpw, or 'fits in 8 GB with 8192 tokens of context'.")
@click.option("--bpw", type=float, help="Bits per weight, the same as --budget Nbpw.")
@click.option(
    "--sensitivity", "sensitivity_path", type=PATH, help="What an error costs.  [default: MODEL.sensitivity.json]"
)
@click.option(
    "--imatrix",
    type=PATH,
    help="The imatrix, if it was moved.  [default: the one that the sensitivity was measured with]",
)
@click.option(
    "--verify",
    type=PATH,
    metavar="TEXT",
    help="Write and measure the plan and its rivals on this text, which should be new to all steps; take the best.",
)
@click.option(
    "--chunks", type=click.IntRange(min=1), default=16, show_default=True, metavar="N", help="Verify on N chunks."
)
@THREADS
@VRAM
@click.option("--explain", "explained", is_flag=True, help="Print what each further byte would buy.")
@click.option("-o", "--out", type=PATH, help="The recipe to write, TOML.  [default: only describe it]")
@FORCE
@constraint_options
def plan_command(
    *,
    model: Path,
    budget: str | None,
    bpw: float | None,
    sensitivity_path: Path | None,
    imatrix: Path | None,
    verify: Path | None,
    chunks: int,
    threads: int,
    vram: str | None,
    explained: bool,
    out: Path | None,
    force: bool,
    constraints: "Constraints",
) -> None:
    """Choose a type for every tensor of MODEL: the least predicted damage within a budget.

    \b
    gguf-golf plan base.gguf --budget 40MB -o recipe.toml --explain
    gguf-golf plan base.gguf --budget 40MB -o recipe.toml --verify held-out.txt
    """
    from gguf_golf.control import verified_recipe
    from gguf_golf.evaluate.on_text import TextSettings
    from gguf_golf.models import open_model
    from gguf_golf.plan.budget import parse_memory
    from gguf_golf.plan.make import explain, make_recipe, summary
    from gguf_golf.plan.offload import offload

    if (budget is None) == (bpw is None):
        raise click.UsageError("give either --budget or --bpw")
    wanted, words, measured = budget or f"{bpw}bpw", [], {}
    memory = None if vram is None else parse_memory(vram)
    known = {"sensitivity_path": sensitivity_path, "imatrix_path": imatrix}
    if verify is None:
        _, made = make_recipe(model, wanted, out, **known, constraints=constraints, force=force)
    else:
        verdict = verified_recipe(
            model,
            wanted,
            out,
            TextSettings(verify, n_chunks=chunks),
            **known,
            constraints=constraints,
            threads=threads,
            force=force,
            say=output().say,
        )
        made, words = verdict.best.plan, [verdict.summary()]
        measured = {trial.name: trial.kld for trial in verdict.trials}
    if explained:
        words.append(explain(open_model(model), made))
    division = None if memory is None else offload(open_model(model), made.recipe, memory)
    if division is not None:
        words.append(division.summary())
    output().result(
        "\n".join([*words, summary(made)]),
        {
            "measured_kld": measured,
            "schema": "gguf-golf/plan",
            "predicted_bytes": made.file_bytes,
            "predicted_kld": made.recipe.predicted_kld,
            "tensors": {name: str(line) for name, line in made.recipe.tensors.items()},
            "super_weights": made.recipe.super_weights,
            "offload": division and division.to_json(),
        },
    )
    if out is not None:
        output().say(f"wrote {out}; next: gguf-golf quantize {model} --recipe {out} -o OUT.gguf")


def _forecast(made: "Prepared") -> None:
    from gguf_golf.quantize.forecast import forecast

    found = forecast(made)
    for note in found.notes:
        output().say(f"note: {note}")
    output().result(str(found), {"schema": "gguf-golf/dry-run", **found.to_json()})


@cli.command("quantize")
@click.argument("model", type=MODEL)
@click.option("--recipe", type=PATH, required=True, help="The type of each tensor (gguf-golf plan).")
@click.option("-o", "--out", type=PATH, required=True, help="The GGUF to write.")
@KEEP_LATTICE
@DRY_RUN
@encoding_options
@executor_options
def quantize_command(*, model: Path, recipe: Path, out: Path, keep_lattice: bool, dry_run: bool, job: "Job") -> None:
    """Write the GGUF of MODEL that a recipe describes.

    The recipe names its own imatrix and Hessians; --imatrix and --hessian say where they are now.

    \b
    gguf-golf quantize base.gguf --recipe recipe.toml -o small.gguf
    """
    from gguf_golf.quantize.from_recipe import quantize
    from gguf_golf.quantize.prepare import by_recipe

    job = replace(job, keep_lattice=keep_lattice)
    if dry_run:
        _forecast(by_recipe(model, recipe, out, job)[0])
        return
    done = quantize(model, recipe, out, job=job)
    for note in done.notes:
        output().say(f"note: {note}")
    output().result(
        f"{out}: {done.written.file_bytes:,} bytes",
        {
            "schema": "gguf-golf/quantize",
            "file": str(out),
            "bytes": done.written.file_bytes,
            "types": {name: quant_type.name for name, quant_type in done.types.items()},
            "notes": done.notes,
        },
    )


@cli.command("tune")
@click.argument("model", type=MODEL)
@click.option("--recipe", type=PATH, help="The type of each tensor (gguf-golf plan).")
@click.option("--type", "type_name", metavar="TYPE", help="One type for all linear layers, instead of a recipe.")
@click.option(
    "--embedding-type", default="auto", show_default=True, metavar="TYPE", help="With --type: as in gguf-golf convert."
)
@click.option("-o", "--out", type=PATH, required=True, help="The GGUF to write.")
@click.option(
    "--text", "texts", type=PATH, multiple=True, help="Text to train on, UTF-8.  [default: the model writes its own]"
)
@click.option(
    "--own-text",
    type=click.IntRange(min=0),
    metavar="N",
    help="Let the model write N tokens to train on, too.  [default: none with --text, at most a million without]",
)
@click.option(
    "--tokens", type=click.IntRange(min=1), default=2_000_000, show_default=True, metavar="N", help="Train on N tokens."
)
@CTX
@click.option("--only", type=click.Choice(["norms"]), help="Train the norms alone: minutes on a CPU.")
@click.option(
    "--measure",
    "measured",
    type=PATH,
    multiple=True,
    help="Measure the first 40 chunks of this text before and after; it decides nothing.",
)
@click.option(
    "--window", type=click.IntRange(min=1), metavar="N", help="Train N layers at a time: for a model that does not fit."
)
@click.option("--start", type=PATH, help="An untuned file with the same types, instead of encoding anew.")
@click.option("--seed", default=0, show_default=True, help="Seed of the order of the text, and of the model's own.")
@encoding_options
def tune_command(
    *,
    model: Path,
    recipe: Path | None,
    type_name: str | None,
    embedding_type: str,
    out: Path,
    texts: tuple[Path, ...],
    own_text: int | None,
    tokens: int,
    ctx: int,
    only: str | None,
    measured: tuple[Path, ...],
    window: int | None,
    start: Path | None,
    seed: int,
    job: "Job",
) -> None:
    """Quantize MODEL, a Hugging Face folder, and train what the file holds: same types, same size, less damage.

    \b
    gguf-golf tune ./MyModel --recipe recipe.toml -o small.gguf --device cuda
    gguf-golf tune ./MyModel --type q2_k --imatrix imatrix.gguf -o small.gguf
    """
    if (recipe is None) == (type_name is None):
        raise click.UsageError("give either --recipe or --type")
    from gguf_golf.tune import require_extra

    require_extra()
    from gguf_golf.tune.settings import Settings
    from gguf_golf.tune.tune import tune

    done = tune(
        model,
        out,
        recipe=recipe,
        type_name=type_name,
        embedding_type=embedding_type,
        settings=Settings(
            texts,
            measured,
            start,
            window,
            tokens,
            ctx,
            own_tokens=own_text,
            only_norms=only == "norms",
            seed=seed,
            device=job.device,
        ),
        job=job,
        say=output().say,
    )
    for note in done.notes:
        output().say(f"note: {note}")
    for each in done.measured:
        output().say(
            f"{each.text.name}: KLD {each.before.kld:.4f} ± {each.before.error:.4f} -> "
            f"{each.after.kld:.4f} ± {each.after.error:.4f}"
        )
    output().result(
        f"{out}: {done.written.file_bytes:,} bytes, held-out KLD {done.kld_before:.4f} -> {done.kld:.4f}",
        {
            "schema": "gguf-golf/tune",
            "file": str(out),
            "bytes": done.written.file_bytes,
            "kld_before": done.kld_before,
            "kld": done.kld,
            "steps": done.steps,
            "tokens": done.tokens,
            "seconds": done.seconds,
            "measured": [asdict(each) | {"text": str(each.text)} for each in done.measured],
            "notes": done.notes,
        },
    )


@cli.command("inspect")
@click.argument("file", type=MODEL)
@click.option("--tensors", is_flag=True, help="List every tensor as well: type, bytes, shape.")
def inspect_command(file: Path, tensors: bool) -> None:
    """Show what a GGUF file holds: architecture, sizes, types, and the recipe and hashes it was made from.

    \b
    gguf-golf inspect small.gguf
    """
    from gguf_golf.quantize.inspect import as_text, inspect

    inspected = inspect(file)
    text = as_text(inspected, every_tensor=tensors)
    output().result(text, {"schema": "gguf-golf/inspect", **asdict(inspected)})


def fit_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `fit` and `sweep` beside the budget; they arrive as one argument, `settings`."""

    @click.option("--text", type=PATH, help="Calibration text.  [default: the one that comes with gguf-golf]")
    @click.option("--eval-text", type=PATH, help="Text to measure on.  [default: the one that comes with gguf-golf]")
    @click.option(
        "--chunks", type=click.IntRange(min=1), default=40, show_default=True, metavar="N", help="Measure on N chunks."
    )
    @click.option("--feedback", is_flag=True, help="Use error feedback for TCQ types; Hessians take disk space.")
    @click.option(
        "--tune",
        type=click.Choice(["cpu", "cuda"]),
        help="Train each file before it is measured, there: on a CPU the norms alone.",
    )
    @VRAM
    @DRY_RUN
    @THREADS
    @wraps(command)
    def wrapper(
        *,
        text: Path | None,
        eval_text: Path | None,
        chunks: int,
        feedback: bool,
        tune: str | None,
        vram: str | None,
        threads: int,
        **others: object,
    ) -> None:
        from gguf_golf.fit import Settings
        from gguf_golf.plan.budget import parse_memory
        from gguf_golf.tune.settings import Settings as TuneSettings

        tuning = {
            None: None,
            "cpu": TuneSettings(tokens=100_000, batch_tokens=2048, only_norms=True),
            "cuda": TuneSettings(device="cuda"),
        }[tune]
        memory = None if vram is None else parse_memory(vram)
        settings = Settings(
            text, eval_text, eval_chunks=chunks, feedback=feedback, threads=threads, tune=tuning, vram=memory
        )
        command(settings=settings, **others)

    return wrapper


@cli.command("fit")
@click.argument("model", type=MODEL)
@click.option("--budget", required=True, help="1.2GB, 2.7bpw, or 'fits in 8 GB with 8192 tokens of context'.")
@click.option("-o", "--out", type=PATH, required=True, help="The GGUF to write; its report is written next to it.")
@fit_options
@constraint_options
@executor_options
def fit_command(
    *, model: Path, budget: str, out: Path, dry_run: bool, settings: "Settings", constraints: "Constraints"
) -> None:
    """Make the best GGUF of MODEL that fits: convert, calibrate, rank, plan, quantize, evaluate, report.

    \b
    gguf-golf fit ./MyModel --budget 60MB -o small.gguf
    """
    _fit(model, [budget], [out], settings, constraints, dry_run=dry_run)


@cli.command("sweep")
@click.argument("model", type=MODEL)
@click.option("--budgets", required=True, help="Comma-separated, such as 2.25bpw,2.75bpw,40MB.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder for the files, the results and the report.")
@fit_options
@constraint_options
@executor_options
def sweep_command(
    *, model: Path, budgets: str, out: Path, dry_run: bool, settings: "Settings", constraints: "Constraints"
) -> None:
    """Make a ladder of files of MODEL, one for each budget, and one report on all of them.

    \b
    gguf-golf sweep ./MyModel --budgets 2.25bpw,2.75bpw,40MB -o ladder
    """
    wanted = [budget.strip() for budget in budgets.split(",")]
    _fit(
        model,
        wanted,
        [out / f"{model.resolve().name.removesuffix('.gguf')}-{budget.replace(' ', '-')}.gguf" for budget in wanted],
        settings,
        constraints,
        dry_run=dry_run,
    )


def _fit(
    model: Path,
    budgets: list[str],
    outs: list[Path],
    settings: "Settings",
    constraints: "Constraints",
    *,
    dry_run: bool,
) -> None:
    from gguf_golf.fit import beside, describe, fit
    from gguf_golf.fit import dry_run as try_out

    if dry_run:
        forecast = try_out(model, budgets, outs, settings, constraints)
        output().result(
            str(forecast),
            {
                "schema": "gguf-golf/dry-run",
                "files": [
                    {
                        "budget": plan.recipe.budget,
                        "file_bytes": plan.file_bytes,
                        "types": {name: str(line) for name, line in plan.recipe.tensors.items()},
                    }
                    for plan in forecast.plans
                ],
                "seconds": forecast.seconds,
                "guessed": forecast.guessed,
            },
        )
        return
    fits = fit(model, budgets, outs, settings, constraints, output().say, command_line())
    report = beside(outs[0], ".html")
    output().result(
        f"{describe(fits)}\nreport: {report}",
        {
            "schema": "gguf-golf/fit",
            "report": str(report),
            "files": [
                {
                    "file": str(each.path),
                    "bytes": each.path.stat().st_size,
                    "predicted_kld": each.predicted_kld,
                    "kld_mean": each.result.measures and each.result.measures.kld_mean,
                    "kld_se": each.result.measures and each.result.measures.kld_se,
                    "offload": each.offload and each.offload.to_json(),
                }
                for each in fits
            ],
        },
    )


@cli.command("report")
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option("-o", "--out", type=PATH, default=Path("report.html"), show_default=True, help="The page to write.")
@click.option("--markdown", type=PATH, help="Also write it as Markdown.")
@click.option("--csv", type=PATH, help="Also write every number as CSV.")
@FORCE
def report_command(
    *, results: tuple[Path, ...], out: Path, markdown: Path | None, csv: Path | None, force: bool
) -> None:
    """Say on one page which file of RESULTS (JSON of gguf-golf eval) to take, and how certain that is.

    \b
    gguf-golf report results.json -o report.html
    """
    from gguf_golf.report import write_report

    verdict = write_report(results, out, markdown=markdown, csv=csv, force=force)
    output().result(
        f"{verdict.as_text()}\nreport: {out}",
        {
            "schema": "gguf-golf/report",
            "page": str(out),
            "pick": verdict.pick and verdict.pick.model.file,
            "headline": verdict.headline,
            "advice": verdict.advice,
            "evidence": verdict.evidence,
        },
    )


@cli.command("publish")
@click.argument("folder", type=PATH)
@click.option("-o", "--out", type=PATH, help="Where to lay it out.  [default: FOLDER/repository]")
@click.option("--repo", metavar="ORG/NAME", help="The repository on the Hugging Face hub.")
@click.option("--base-model", metavar="ORG/NAME", help="The original on the hub.")
@click.option("--license", help="The licence's id on the hub, such as apache-2.0.")
@click.option("--author", metavar="NAME", help="Who quantized it.")
@click.option(
    "--split-max-size", default="45GB", show_default=True, metavar="SIZE", help="Split larger files into parts."
)
@click.option("--private", is_flag=True, help="Create the repository as a private one.")
@click.option("--dry-run", is_flag=True, help="Lay out only; upload nothing.")
def publish_command(
    folder: Path,
    out: Path | None,
    repo: str | None,
    base_model: str | None,
    license: str | None,
    author: str | None,
    split_max_size: str,
    private: bool,
    dry_run: bool,
) -> None:
    """Lay out the GGUFs and results of FOLDER as a repository with a model card, and upload it.

    \b
    gguf-golf publish ladder --dry-run --base-model org/name --license apache-2.0
    """
    from gguf_golf.publish.card import About
    from gguf_golf.publish.repository import OUT_NAME, lay_out, upload
    from gguf_golf.sizes import parse_size

    if not dry_run and repo is None:
        raise click.UsageError("name the repository with --repo, or lay out only with --dry-run")
    about = About(repo, base_model, license, author)
    made = lay_out(folder, out or folder / OUT_NAME, about, split_bytes=parse_size(split_max_size), say=output().say)
    for note in made.notes:
        output().say(f"note: {note}")
    address = None if dry_run or repo is None else upload(made, repo, private=private)
    lines = [f"{size:>15,}  {name}" for name, size in made.files.items()]
    output().result(
        "\n".join([*lines, f"laid out in {made.folder}", *([f"uploaded to {address}"] if address else [])]),
        {
            "schema": "gguf-golf/publish",
            "folder": str(made.folder),
            "files": made.files,
            "notes": made.notes,
            "address": address,
        },
    )


@cli.command("bench")
@click.argument("types", nargs=-1)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Number of interleaved rounds."
)
@click.option("--models", is_flag=True, help="Also measure whole models with llama-bench.")
def bench_command(types: tuple[str, ...], rounds: int, models: bool) -> None:
    """Measure how fast TYPES (default: all) multiply and encode on this CPU, on one thread.

    \b
    gguf-golf bench tcq3 q3_k --rounds 1
    """
    from gguf_golf.bench.run import bench

    output().result(*bench(types, rounds, with_models=models))


@cli.command("demo")
@click.option("-o", "--out", type=PATH, default=Path("demo-out"), show_default=True, help="Folder for the files.")
def demo_command(out: Path) -> None:
    """Calibrate, convert and measure the embedded model at several types, and write a report."""
    from gguf_golf.demo import demo

    shown = demo(out, output().say)
    output().result(f"{shown.text}\nreport: {shown.page}", shown.document)


def main() -> None:
    """Run the command line; an error that a user can fix becomes one line on stderr and exit code 1."""
    shared = Output()
    try:
        cli(obj=shared)
    except (GolfError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        if shared.verbose:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
