"""The table that `gguf-golf eval` prints."""

from collections.abc import Sequence

from gguf_golf.evaluate.results import ModelResult

HEADINGS = ("model", "MB", "bpw", "ppl", "bpb", "KLD", "median", "99%", "top-1 %")


def render(results: Sequence[ModelResult]) -> str:
    """One line a model: MB are 10^6 bytes, KLD in nats, +- is one standard error (block bootstrap over chunks)."""
    rows = [HEADINGS, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _row(result: ModelResult) -> tuple[str, ...]:
    measures = result.measures
    assert measures is not None
    name = result.file if result.role == "quant" else f"{result.file} ({result.role})"
    return (
        name,
        f"{result.bytes / 1e6:.1f}",
        f"{result.bpw:.2f}",
        _number(measures.ppl, measures.ppl_se, 3),
        f"{measures.bpb:.4f}",
        _number(measures.kld_mean, measures.kld_se, 5),
        _number(measures.kld_p50, None, 5),
        _number(measures.kld_p99, None, 3),
        _number(measures.top1, measures.top1_se, 2, factor=100),
    )


def _number(value: float | None, error: float | None, digits: int, factor: float = 1) -> str:
    if value is None:
        return "-"
    text = f"{round(value * factor, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero
    return text if error is None else f"{text} +- {error * factor:.{digits}f}"
