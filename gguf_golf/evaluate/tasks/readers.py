"""The questions of a file, by the name of its kind. Prompts are those of lm-evaluation-harness."""

from pathlib import Path
from typing import Any

from gguf_golf.evaluate.tasks.kinds import find_kind
from gguf_golf.evaluate.tasks.question import Question


def read_questions(kind: str, path: Path, **settings: Any) -> list[Question]:
    """All questions of a file of the given kind; `settings` are those of the kind, such as PIQA's `labels`.

    Raises InputError for an unknown kind, an absent or empty file, or one that is not of this kind.
    """
    found = find_kind(kind)
    return found.questions(found.settings(name=kind, file=path, **settings))
