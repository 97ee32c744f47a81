"""The command reference, made from the commands' own help: `make docs` writes docs/cli.md, a test compares it."""

from collections.abc import Iterator

import click

from gguf_golf.cli import cli

HEAD = """# Commands

Every command and option, as `--help` shows them. This page is generated: `make docs`.
Shell completion: `eval "$(_GGUF_GOLF_COMPLETE=bash_source gguf-golf)"` (also `zsh_source`, and `fish_source` piped into
`source`)."""


def reference() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for path, command in _commands(cli, ("gguf-golf",)):
        context = click.Context(command, info_name=" ".join(path), terminal_width=100, **cli.context_settings)
        parts.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], (*path, name))


if __name__ == "__main__":
    click.echo(reference(), nl=False)
