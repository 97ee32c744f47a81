"""LAMBADA: the last word of a passage."""

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.files import json_rows
from gguf_golf.evaluate.tasks.kind import TaskKind, TaskSettings, letters
from gguf_golf.evaluate.tasks.question import Option, Question, question


def _read(settings: TaskSettings) -> list[Question]:
    found = []
    for number, row in json_rows(settings.file, {"text": str}):
        context, _, word = row["text"].rstrip().rpartition(" ")
        if not context:
            raise InputError(f"{settings.file}, line {number}: a text of one word has nothing to complete")
        found.append(question(f"lambada-{number}", 0, [Option(context, " " + word)]))
    return found


LAMBADA = TaskKind(
    "lambada",
    TaskSettings,
    _read,
    primary="acc",
    metrics=letters,
    file="JSON lines `text`",
    compared="whether the last word is what the model would say",
)
