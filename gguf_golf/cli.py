"""The command line: parse, call one function, print. No logic lives here."""

import sys

import click

from gguf_golf import __version__
from gguf_golf.errors import GolfError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """The best GGUF that fits in N bytes, and the proof beside it."""


def main() -> None:
    """Run the command line; a GolfError becomes one line on stderr and exit code 1."""
    try:
        cli()
    except GolfError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
