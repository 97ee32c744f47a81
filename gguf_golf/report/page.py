"""The report page: one HTML file that loads nothing, made from results files; and its siblings, Markdown and CSV."""

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gguf_golf import __version__
from gguf_golf.errors import InputError
from gguf_golf.files import write_text
from gguf_golf.report import plots, words
from gguf_golf.report.axes import Axis, axes
from gguf_golf.report.domains import domains
from gguf_golf.report.merge import merge, shared_start
from gguf_golf.report.results import Results, read
from gguf_golf.report.retained import shares
from gguf_golf.report.speeds import speeds
from gguf_golf.report.table import columns, csv_text
from gguf_golf.report.tasks import task_panels
from gguf_golf.report.typemap import type_map
from gguf_golf.report.verdict import BANDS, Verdict, decide

# what tells our files from others': see gguf_golf/files.py
PAGE_MARK = b'<meta name="generator" content="gguf-golf'
MARKDOWN_MARK = b"## Which file should I take?"
CSV_MARK = b"file,role,sha256,bytes,bytes_zstd,bpw,parameters"


def write_report(
    results: Path | Mapping[str, Any] | Sequence[Path | Mapping[str, Any]],
    out: Path | None = None,
    *,
    markdown: Path | None = None,
    csv: Path | None = None,
    force: bool = False,
) -> Verdict:
    """Write the page of these results to `out`, and the same as Markdown and as CSV where named; returns the verdict.

    `results`: files of `gguf-golf eval --json`, or documents still in memory (`evaluate.results.document`).
    An existing file of another kind is only replaced with `force`. Raises InputError for files that are not results,
    and for results that may not be compared with each other.
    """
    sources = [results] if isinstance(results, Path | Mapping) else list(results)
    if not sources:
        raise InputError("no results to report; name a file written by gguf-golf eval --json")
    merged = merge([read(source) for source in sources])
    found = axes(merged)
    verdict = decide(merged, found)
    inputs = [source for source in sources if isinstance(source, Path)]
    if out is not None:
        write_text(out, render("report.html.j2", merged, found, verdict), inputs, mark=PAGE_MARK, force=force)
    if markdown is not None:
        write_text(markdown, render("report.md.j2", merged, found, verdict), inputs, mark=MARKDOWN_MARK, force=force)
    if csv is not None:
        write_text(csv, csv_text(merged), inputs, mark=CSV_MARK, force=force)
    return verdict


def markdown_text(results: Sequence[Path]) -> str:
    """The report of these results as Markdown. Raises InputError as `write_report` does."""
    merged = merge([read(source) for source in results])
    found = axes(merged)
    return render("report.md.j2", merged, found, decide(merged, found))


def render(template: str, results: Results, found: Sequence[Axis], verdict: Verdict) -> str:
    """The page (or model card) of merged results as text."""
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            results=results,
            title=_title(results),
            verdict=verdict,
            axes=found,
            plots=[plots.pareto(results, axis) for axis in found],
            distribution=plots.distribution(results),
            columns=columns(found, results),
            shares=shares(results, list(found)),
            panels=task_panels(results, found),
            domains=domains(results),
            speeds=speeds(results),
            maps=[(model, type_map(model)) for model in results.models if model.role != "noise-floor"],
            bands=BANDS,
            size=plots,
            version=__version__,
            script=Markup(script),
            script_sha256=digest,
            style=Markup(_asset("report.css")),
        )
    )


def figure(plot: plots.Pareto) -> str:
    """One plot alone, as an HTML figure without a style."""
    parts = _environment().get_template("parts.html.j2").make_module({"size": plots})
    return str(parts.pareto(plot))  # type: ignore[attr-defined]  # a macro


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gguf_golf.report"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=words.size, number=words.number, percent=words.percent, shell=shlex.quote, cell=markdown_cell
    )
    return environment


def _title(results: Results) -> str:
    """The model's name: what all file names share, else the base's."""
    stems = [model.file.removesuffix(".gguf") for model in results.models]
    return shared_start(stems).rstrip("-_. ") or stems[0]


def _asset(name: str) -> str:
    return (files("gguf_golf.report") / "templates" / name).read_text(encoding="utf-8")


def markdown_cell(text: object) -> str:
    """Text that means nothing to Markdown, HTML, or a table's columns."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_{}[]|~#!" else " " if c in "\r\n" else c for c in escaped)
