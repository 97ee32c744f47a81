"""What a model answered to the questions of a task."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answers:
    """By metric: for each question a score from 0 to 1, the chosen option, if any, and whether that one is right."""

    ids: list[str]
    scores: dict[str, list[float]]
    chosen: dict[str, list[int | None]]
    right: dict[str, list[bool]]
