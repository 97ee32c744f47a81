"""The tables that `gguf-golf eval` prints."""

from collections.abc import Sequence

from gguf_golf.evaluate.results import ModelResult
from gguf_golf.evaluate.tasks.task import TaskResult

Row = tuple[str, ...]
HEADINGS = ("model", "MB", "bpw", "ppl", "bpb", "KLD", "median", "99%", "top-1 %")
TASK_HEADINGS = ("model", "task", "n", "metric", "score %", "95%", "chance %", "lost", "gained", "p", "retained %")
SPEED_HEADINGS = ("model", "prompt t/s", "generate t/s", "memory MB", "load s")


def results_table(results: Sequence[ModelResult]) -> str:
    """What was measured: texts, tasks, speed, each a table.

    MB are 10^6 bytes, KLD is in nats, +- is one standard error (block bootstrap over chunks).
    """
    texts = [_text_row(result) for result in results]
    tasks = [_task_row(result, name, task) for result in results for name, task in result.tasks.items()]
    tasks.sort(key=lambda row: list(results[0].tasks).index(row[1]))
    speeds = [_speed_row(result) for result in results if result.speed is not None]
    tables = [(HEADINGS, texts), (TASK_HEADINGS, tasks), (SPEED_HEADINGS, speeds)]
    return "\n\n".join(_table(headings, rows) for headings, rows in tables if rows)


def _table(headings: Row, rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [headings, *rows]
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _name(result: ModelResult) -> str:
    return result.file if result.role == "quant" else f"{result.file} ({result.role})"


def _text_row(result: ModelResult) -> Row:
    size = (_name(result), f"{result.bytes / 1e6:.1f}", f"{result.bpw:.2f}")
    measures = result.measures
    if measures is None:
        return (*size, *["-"] * (len(HEADINGS) - len(size)))
    return (
        *size,
        _number(measures.ppl, measures.ppl_se, 3),
        f"{measures.bpb:.4f}",
        _number(measures.kld_mean, measures.kld_se, 5),
        _number(measures.kld_p50, None, 5),
        _number(measures.kld_p99, None, 3),
        _number(measures.top1, measures.top1_se, 2, factor=100),
    )


def _task_row(result: ModelResult, name: str, task: TaskResult) -> Row:
    metric = task.metrics[task.primary]
    return (
        _name(result),
        name,
        str(task.n),
        task.primary,
        _number(metric.score, None, 1, factor=100),
        f"{100 * metric.low:.1f} to {100 * metric.high:.1f}",
        _number(task.chance, None, 1, factor=100),
        "-" if metric.lost is None else str(len(metric.lost)),
        "-" if metric.gained is None else str(len(metric.gained)),
        _number(metric.mcnemar_p, None, 3),
        _number(metric.retained, None, 1, factor=100),
    )


def _speed_row(result: ModelResult) -> Row:
    speed = result.speed
    assert speed is not None
    return (
        _name(result),
        f"{speed.prompt_tps:.1f}",
        f"{speed.generate_tps:.1f}",
        f"{speed.resident_bytes / 1e6:.0f}",
        f"{speed.load_seconds:.2f}",
    )


def _number(value: float | None, error: float | None, digits: int, factor: float = 1) -> str:
    if value is None:
        return "-"
    text = f"{round(value * factor, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero
    return text if error is None else f"{text} +- {error * factor:.{digits}f}"
