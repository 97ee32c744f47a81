"""Every command in the documentation, as it is written, parses; the pages that people follow run from top to bottom."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import click
import pytest
from click.testing import CliRunner

from gguf_golf.cli import cli
from gguf_golf.command import MODEL
from tests.docs.conftest import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "patches/*.md", "findings/*.md", "eval/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name not in ("CHANGELOG.md", "cli.md", "example.md")  # two are generated
)
FOLLOWED = (
    *("README.md", "docs/quickstart.md", "docs/daily.md", "docs/publishing.md", "docs/report.md"),
    *("docs/other-programs.md", "docs/evaluation.md", "docs/planning.md", "docs/runtime.md"),
)

NOT_RUN_HERE = ("serve", "tool", "runtime build", "cache clean", "data fetch", "eval --suite")
"""The first two replace the process: test_servers_and_tools.py runs them. tests/runtime builds and cleans, and
test_datasets.py fetches, without this user's cache and the network; suites run on data that not everybody has."""

STANDS_FOR = {
    "MODEL": "./MyModel",
    "MODEL.gguf": "base.gguf",
    "BASE.gguf": "base.gguf",
    "QUANT.gguf...": "small.gguf",
    "wiki.test.raw": "test.txt",
    "transformers:./MyModel-AWQ": "transformers:./MyModel",
    "1.2GB": "2.8MB",
}
"""What names in the pages stand for, where the reader's model is not golf-tiny."""


def commands(page: Path) -> Iterator[str]:
    """The lines of the page's code blocks (indented or fenced as sh), without their comments."""
    fence = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fence = line[3:].strip() if fence is None else None
        elif fence == "sh" or (fence is None and re.match(r"    \S", line)):
            yield re.split(r"\s#\s", line.strip())[0].strip()


def our_commands(page: Path) -> list[list[str]]:
    """The arguments of every `gguf-golf` on the page, also after a pipe."""
    found = []
    for line in commands(page):
        for part in line.split(" | "):
            words = shlex.split(part) if part.startswith(("gguf-golf ", ".venv/bin/gguf-golf ")) else []
            if words:
                found.append(words[1:])
    return found


def parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse as click does, without running anything; raises click.UsageError."""
    context = command.make_context("gguf-golf", list(arguments), parent)
    if isinstance(command, click.Group):
        _, child, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert child is not None
        parse(child, rest, context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_parses(page: Path) -> None:
    with mock.patch.object(type(MODEL), "convert", lambda self, value, param, ctx: Path(value)):
        for arguments in our_commands(page):
            if "--help" not in arguments:
                parse(cli, arguments)


@pytest.mark.parametrize("page", FOLLOWED)
def test_the_pages_that_people_follow_run(page: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    (desk / "letter.txt").write_text("Dear city of London,")
    for name in ("text.json", "tasks.json"):  # what docs/report.md joins: here, two names of one file
        if (desk / "results.json").exists():
            (desk / name).write_bytes((desk / "results.json").read_bytes())
    for arguments in our_commands(ROOT / page):
        if " ".join(arguments).startswith(NOT_RUN_HERE) or "--repo" in arguments:
            continue
        if "--engine" in arguments and find_spec("torch") is None:
            continue  # the [hf] extra
        words = [STANDS_FOR.get(word, word) for word in arguments]
        result = CliRunner().invoke(cli, words, input="Once upon a time", catch_exceptions=False)
        assert result.exit_code == 0, f"{arguments}: {result.output}"


def test_the_line_for_shell_completion_completes(tmp_path: Path) -> None:
    (line,) = [line for line in commands(ROOT / "docs" / "install.md") if line.startswith("eval ")]
    program = tmp_path / "gguf-golf"
    program.write_text(f"#!{sys.executable}\nfrom gguf_golf.cli import main\nmain()\n")
    program.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = f"{line}; complete -p gguf-golf"
    done = subprocess.run(["bash", "-c", words], check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "gguf-golf" in done.stdout, done.stderr


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for line in commands(page):
            if line.startswith("make "):
                assert {word for word in line.split()[1:] if "=" not in word} <= targets, f"{page.name}: {line}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_wrapped(page: Path) -> None:
    """At 120 columns, where a line can be: not in tables, code, links and front matter."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.startswith("```")
        free = fenced or line.lstrip().startswith("|") or line.startswith(("    ", "- ", "**Take")) or "](http" in line
        assert free or len(line) <= 120, f"{page.name}:{number} has {len(line)} columns"
