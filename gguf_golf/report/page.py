"""The report page: one HTML file that loads nothing, made from results files; and its siblings, Markdown and CSV."""

import base64
import hashlib
import os
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


def write_report(
    results: Path | Mapping[str, Any] | Sequence[Path | Mapping[str, Any]],
    out: Path | None = None,
    *,
    markdown: Path | None = None,
    csv: Path | None = None,
) -> Verdict:
    """Write the page of these results to `out`, and the same as Markdown and as CSV where named; returns the verdict.

    `results`: files of `gguf-golf eval --json`, or documents still in memory (`evaluate.results.document`).
    Raises InputError for files that are no results, and for results that may not be compared with each other.
    """
    sources = [results] if isinstance(results, Path | Mapping) else list(results)
    if not sources:
        raise InputError("no results to report; name a file written by gguf-golf eval --json")
    merged = merge([read(source) for source in sources])
    found = axes(merged)
    verdict = decide(merged, found)
    if out is not None:
        _write(out, render("report.html.j2", merged, found, verdict))
    if markdown is not None:
        _write(markdown, render("card.md.j2", merged, found, verdict))
    if csv is not None:
        _write(csv, csv_text(merged))
    return verdict


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
        size=words.size, number=words.number, percent=words.percent, shell=shlex.quote, cell=_markdown_cell
    )
    return environment


def _title(results: Results) -> str:
    """The model's name: what all file names share, else the base's."""
    stems = [model.file.removesuffix(".gguf") for model in results.models]
    return shared_start(stems).rstrip("-_. ") or stems[0]


def _asset(name: str) -> str:
    return (files("gguf_golf.report") / "templates" / name).read_text(encoding="utf-8")


def _markdown_cell(text: object) -> str:
    """Text that means nothing to Markdown, HTML, or a table's columns."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_{}[]|~#!" else " " if c in "\r\n" else c for c in escaped)


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    aside = path.with_name(path.name + ".partial")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
