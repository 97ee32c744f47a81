"""How far two files may differ by chance alone, when both read the same chunks or answered the same questions.

What makes a chunk or a question hard is hard for both, and drops out of their difference; so these errors are smaller
than those of two independent measurements.
"""

import math
import statistics

from gguf_golf.report.results import Model, Task


def by_chunk(one: Model, other: Model, name: str) -> float | None:
    """Standard error of the difference of two files' means over chunks; None unless both hold the same two or more.

    Chunks are drawn whole, as tokens of one chunk are not independent; for a mean of chunks of equal size the block
    bootstrap's error has this closed form.
    """
    ours, theirs = one.chunks.get(name, []), other.chunks.get(name, [])
    if len(ours) < 2 or len(ours) != len(theirs):
        return None
    return statistics.stdev(a - b for a, b in zip(ours, theirs, strict=True)) / math.sqrt(len(ours))


def by_question(one: Model, other: Model, name: str) -> float | None:
    """Standard error of the difference of two files' shares of right answers; None unless both were compared to a base.

    Each file's flips against the base say on which questions the two differ (McNemar's discordant pairs).
    """
    ours, theirs = one.tasks.get(name), other.tasks.get(name)
    if ours is None or theirs is None or ours.n != theirs.n or ours.n < 2:
        return None
    flips, others = _flips(ours), _flips(theirs)
    if flips is None or others is None:
        return None
    differences = [flips.get(key, 0) - others.get(key, 0) for key in flips.keys() | others.keys()]
    mean = sum(differences) / ours.n
    variance = sum(d * d for d in differences) / ours.n - mean**2
    return math.sqrt(max(0.0, variance) / (ours.n - 1))


def _flips(task: Task) -> dict[str, int] | None:
    """+1 for each question that only this file answers correctly, -1 for each that only the base does."""
    if task.metric.mcnemar_p is None:
        return None
    return {**dict.fromkeys(task.metric.lost, -1), **dict.fromkeys(task.metric.gained, 1)}
