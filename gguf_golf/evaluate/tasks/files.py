"""What the readers of benchmark files share: text, lines, rows. Every error names the file and the line.

Lines end at a newline and nowhere else: JSON and prose may hold U+2028, U+0085 or form feeds inside a line.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError


def read_utf8(path: Path) -> str:
    """The text of a file without its byte order mark. Raises InputError if it is absent or not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a UTF-8 text file") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without their newlines (a carriage return before one belongs to it)."""
    return [line.removesuffix("\r") for line in read_utf8(path).removesuffix("\n").split("\n")]


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the row from 1, its cells). Raises InputError where a file is not CSV."""
    rows = csv.reader(io.StringIO(read_utf8(path), newline=""))
    number = 0
    while True:
        number += 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise InputError(f"{path}, row {number}: not CSV ({error})") from error
        if cells is None:
            return
        yield number, cells


def json_rows(path: Path, keys: Mapping[str, type]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line from 1, its object), empty lines left out; `keys` are those needed, with their types.

    Raises InputError where a line is not JSON, lacks a key, or holds a value of another type.
    """
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})") from error
        if missing := [key for key in keys if not isinstance(row, dict) or key not in row]:
            raise InputError(f"{path}, line {number}: has no {', '.join(missing)}")
        if wrong := [key for key, kind in keys.items() if not isinstance(row[key], kind)]:
            raise InputError(f"{path}, line {number}: {wrong[0]} is not a {keys[wrong[0]].__name__}")
        yield number, row
