"""The table of all files: its columns for the page and the model card, and every number as CSV."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gguf_golf.report import words
from gguf_golf.report.axes import Z95, Axis
from gguf_golf.report.results import MEASURES, Model, Results

MAIN = ("size", "bits per weight", "KLD", "KLD 99%", "same top, %", "perplexity", "Δ perplexity, %", "tokens/s")
"""Titles of the columns that fit a laptop's screen and a sheet of paper."""


@dataclass(frozen=True)
class Column:
    """`text` is what a cell shows, `sort` what it is sorted by (None: not known, sorted last).

    Columns that are not `main` are shown when the reader asks for every column.
    """

    title: str
    help: str
    text: Callable[[Model], str]
    sort: Callable[[Model], float | None]
    main: bool = False


def columns(axes: Sequence[Axis], results: Results) -> list[Column]:
    """The columns for which at least one file has a value."""
    every = [
        Column(
            "size",
            "bytes of the whole file, header and tokenizer included; decimal units",
            lambda m: words.size(m.bytes),
            lambda m: m.bytes,
        ),
        Column(
            "download",
            "bytes after zstd -19: what a compressed download costs",
            lambda m: words.size(m.bytes_zstd) if m.bytes_zstd else "–",
            lambda m: m.bytes_zstd,
        ),
        Column(
            "bits per weight",
            "all tensors, embedding and head included, over all parameters",
            lambda m: words.number(m.bpw),
            lambda m: m.bpw,
        ),
        Column(
            "layers' bits per weight",
            "without embedding and head, which are a large part of small models",
            lambda m: words.number(m.layers_bpw),
            lambda m: m.layers_bpw,
        ),
        _measure("KLD", "mean KL divergence to the original, nats", "kld_mean", "kld_se"),
        _measure("KLD median", "half of all tokens are changed less", "kld_p50", "kld_p50_se"),
        _measure("KLD 99%", "one token in a hundred is changed more", "kld_p99", "kld_p99_se"),
        _measure("KLD 99.9%", "one token in a thousand is changed more", "kld_p999", "kld_p999_se"),
        _measure("KLD max", "the worst token", "kld_max", None),
        _measure("same top, %", "the most likely next token is the original's", "top1", "top1_se", 100),
        _measure("same top 5, %", "the five most likely tokens are the original's", "top5", "top5_se", 100),
        _measure("RMS Δp, %", "change in the probability of the right token", "rms_dp", "rms_dp_se", 100),
        _perplexity(),
        _perplexity_change(),
        _measure("bits per byte", "of text; comparable between tokenizers", "bpb", "bpb_se"),
        *(_axis(axis) for axis in axes if axis.key.startswith("task:")),
        Column(
            "tokens/s",
            "generation",
            lambda m: words.number(m.speed.get("generate_tps")),
            lambda m: m.speed.get("generate_tps"),
        ),
    ]
    known = [column for column in every if any(column.sort(m) is not None for m in results.models)]
    return [replace(column, main=column.title in MAIN) for column in known]


def _measure(title: str, description: str, name: str, error: str | None, factor: float = 1) -> Column:
    def text(model: Model) -> str:
        se = model.measures.get(error) if error else None
        return words.measured(model.measures.get(name), None if se is None else Z95 * se, factor)

    return Column(title, description, text, lambda model: model.measures.get(name))


def _perplexity() -> Column:
    """Its own error is mostly that of the text, which all files share; the paired one stands in the next column."""
    return Column(
        "perplexity",
        "per token",
        lambda model: words.number(model.measures.get("ppl"), 4),
        lambda model: model.measures.get("ppl"),
    )


def _perplexity_change() -> Column:
    def ratio(model: Model) -> float | None:
        value = model.measures.get("ln_ppl_ratio")
        return None if value is None else math.exp(min(value, 50.0))

    def text(model: Model) -> str:
        value, se = ratio(model), model.measures.get("ln_ppl_ratio_se")
        return words.measured(None if value is None else value - 1, se and value and Z95 * se * value, 100)

    return Column("Δ perplexity, %", "against the original, paired", text, ratio)


def _axis(axis: Axis) -> Column:
    def sort(model: Model) -> float | None:
        value = axis.of(model)
        return value.value if value else None

    return Column(f"{axis.title}, %", axis.caption, lambda model: axis.show(axis.of(model)).replace("%", ""), sort)


def csv_text(results: Results) -> str:
    """Every number of every file, one line per file, columns named as in the results schema; tasks as task.metric."""
    scores = list(
        dict.fromkeys(
            (name, metric) for m in results.models for name, task in m.tasks.items() for metric in task.metrics
        )
    )
    speeds = list(dict.fromkeys(name for model in results.models for name in model.speed))
    head = ["file", "role", "sha256", "bytes", "bytes_zstd", "bpw", "parameters", *MEASURES, *speeds]
    for task, metric in scores:
        head += [f"{task}.{metric}", f"{task}.{metric}.low", f"{task}.{metric}.high", f"{task}.{metric}.retained"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_plain(name) for name in head])
    for model in results.models:
        row: list[object] = [_plain(model.file), model.role, _plain(model.sha256), model.bytes]
        row += [model.bytes_zstd, model.bpw, model.parameters]
        row += [model.measures.get(name) for name in MEASURES] + [model.speed.get(name) for name in speeds]
        for task, metric in scores:
            known = model.tasks[task].metrics.get(metric) if task in model.tasks else None
            row += [known.score, known.low, known.high, known.retained] if known else [None] * 4
        writer.writerow(row)
    return out.getvalue()


def _plain(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
