"""The rooms' order: every import points down, so that each room can be understood without those above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gguf_golf"

LAYERS = (
    ("__init__", "errors", "files", "hub", "interrupt", "journal", "progress", "sizes", "texts", "threads"),
    ("formats",),
    ("runtime",),
    ("models",),
    ("steps",),
    ("calibrate",),
    ("encode",),
    ("container",),
    ("sensitivity",),
    ("plan",),
    ("quantize",),
    ("datasets",),
    ("tune",),
    ("evaluate",),
    ("report",),
    ("notebook",),
    ("bench",),
    ("control",),
    ("fit", "demo", "publish", "use", "verify"),
    ("api",),
    ("command", "cli"),
    ("__main__", "cli_reference"),
)
"""Lowest first. A room may import from its own layer and those below it."""

RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}


def imports(path: Path) -> Iterator[str]:
    """The rooms that a file imports from, within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "gguf_golf":
            names = [f"gguf_golf.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == "gguf_golf":
                yield rest[0] if rest and room_exists(rest[0]) else "__init__"


def room_exists(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("room", sorted({room_of(path) for path in PACKAGE.rglob("*.py")}))
def test_imports_point_down(room: str) -> None:
    if room == "__init__":
        return  # it offers api's names, which it imports when they are used
    assert room in RANK, f"say in LAYERS which rooms {room} may import from"
    files = sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    upward = {
        f"{path.relative_to(PACKAGE)} imports {used}"
        for path in files
        for used in imports(path)
        if RANK[used] > RANK[room]
    }
    assert not upward
