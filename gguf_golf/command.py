"""What every command of the command line shares: MODEL and PATH, --json, -q and -v, and where its words go.

Standard output carries results alone; progress and notes go to standard error. As the command line itself, this imports
no large library before a command runs.
"""

import json
import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gguf_golf.errors import printable
from gguf_golf.hub import locate

PATH = click.Path(path_type=Path)


class _Model(click.Path):
    """MODEL: a Hugging Face folder, a GGUF (any part of a split one), or a hub id, as a path."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return locate(str(value))


MODEL = _Model()

STDOUT = Path("-")
_MARK = b'"gguf-golf/'  # in the schema of every document that we write


class Output:
    """Where a command's words go. `json_path` None means text, STDOUT means JSON on standard output instead of text."""

    def __init__(self) -> None:
        self.json_path: Path | None = None
        self.quiet = False
        self.verbose = False

    def say(self, words: str) -> None:
        """Tell the user how it goes, or something worth knowing."""
        if not self.quiet:
            click.echo(printable(words), err=True)

    def result(self, text: str, document: dict[str, Any]) -> None:
        """The command's outcome, as words and as a document whose first key is its schema.

        The file is written first: it is there even if standard output is closed.
        """
        written = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if self.json_path == STDOUT:
            click.echo(written, nl=False)
            return
        if self.json_path is not None:
            from gguf_golf.files import write_text

            write_text(self.json_path, written, mark=_MARK)
        click.echo(printable(text))


def output() -> Output:
    """The running command's."""
    return click.get_current_context().ensure_object(Output)


def command_line(program: str = "gguf-golf") -> str:
    """What the user typed, to reproduce the results: absolute paths by their last part, as they are nobody else's."""
    words = (Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])
    return f"{program} {shlex.join(words)}"


class Command(click.Command):
    """A command with the options that all have."""

    def __init__(self, *arguments: Any, with_json: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += _common_options(with_json)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's, once it is known that --json can be written and replaces nothing that the command names."""
        result = ctx.ensure_object(Output)
        if result.json_path is not None and result.json_path != STDOUT:
            from gguf_golf.files import check_output

            check_output(result.json_path, _paths(ctx.params.values()), mark=_MARK)
        if result.verbose:
            logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
        if not result.quiet:
            return super().invoke(ctx)
        from gguf_golf.progress import quiet

        with quiet():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


def _common_options(with_json: bool) -> list[click.Parameter]:
    def keep(name: str) -> Any:
        def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
            if value:
                setattr(ctx.ensure_object(Output), name, value)

        return callback

    options = [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=keep("quiet"),
            help="Print results and errors only.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=keep("verbose"),
            help="Show llama.cpp's log, and where an error arose.",
        ),
    ]
    if with_json:
        options.insert(
            0,
            click.Option(
                ["--json"],
                type=PATH,
                is_flag=False,
                flag_value=str(STDOUT),
                metavar="[PATH]",
                expose_value=False,
                callback=keep("json_path"),
                help="Write the result as JSON to PATH; without PATH, print it instead of text.",
            ),
        )
    return list(options)


def _paths(values: Any) -> Iterator[Path]:
    for value in values:
        if isinstance(value, Path):
            yield value
        elif isinstance(value, tuple):
            yield from _paths(value)
