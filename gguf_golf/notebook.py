"""How results show themselves in a notebook: small tables and the report's plots, as HTML that stands alone."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gguf_golf.report import page, plots
from gguf_golf.report.axes import axes
from gguf_golf.report.merge import merge
from gguf_golf.report.results import read
from gguf_golf.report.table import columns

STYLE = """<style>
.gguf-golf svg { max-width: 32rem; display: block }
.gguf-golf text { font: 11px sans-serif; fill: currentColor }
.gguf-golf .rule, .gguf-golf .level { stroke: currentColor; stroke-opacity: .25; fill: none }
.gguf-golf .frontier { stroke: #0b7285; fill: none }
.gguf-golf .dot { fill: #0b7285 } .gguf-golf .error { stroke: #0b7285 } .gguf-golf .target { fill: none }
.gguf-golf .dominated { opacity: .45 }
</style>"""
SHOWN = ("size", "bits per weight", "KLD", "same top, %", "perplexity", "Δ perplexity, %")


def text(value: object) -> str:
    """Any value as text of HTML."""
    return escape(str(value))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text cells."""
    head = "".join(f"<th>{text(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def evaluation(document: Mapping[str, Any]) -> str:
    """A results document as the main columns of its table and, where files are compared, the first plot."""
    results = merge([read(document)])
    found = axes(results)
    shown = [column for column in columns(found, results) if column.title in SHOWN]
    rows = [[model.label, *(column.text(model) for column in shown)] for model in results.models]
    made = table(["file", *(column.title for column in shown)], rows)
    if len(results.quants) < 2 or not found:
        return made
    return f'{made}{STYLE}<div class="gguf-golf">{page.figure(plots.pareto(results, found[0]))}</div>'
