"""Tables in Markdown, line by line."""

from collections.abc import Iterator

Lines = Iterator[str]


def head(*columns: str) -> Lines:
    """The first two lines of a table."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)


def row(*cells: object) -> str:
    """One more."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
