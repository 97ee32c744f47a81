"""The command line: parse, call one function, print. No logic lives here."""

import sys

import click

from gguf_golf import __version__
from gguf_golf.errors import GolfError
from gguf_golf.runtime.config import Options
from gguf_golf.runtime.info import describe
from gguf_golf.runtime.library import make


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """The best GGUF that fits in N bytes, and the proof beside it."""


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
def runtime_build(tools: bool, tests: bool, amx: bool, portable: bool, cuda: bool, metal: bool) -> None:
    """Fetch, patch and build llama.cpp, and link the llama-cpp-python bindings to it."""
    options = Options(amx=amx, portable=portable, cuda=cuda, metal=metal)
    components = ("lib", *(["tools"] if tools else []), *(["tests"] if tests else []))
    click.echo(f"runtime ready: {make(options, components)}")


@runtime.command("info")
def runtime_info() -> None:
    """Show the pin, the flags, the CPU's features, the paths and all types."""
    click.echo(describe())


def main() -> None:
    """Run the command line; a GolfError becomes one line on stderr and exit code 1."""
    try:
        cli()
    except GolfError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
