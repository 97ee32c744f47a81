"""ARC: science questions of a school, answers as whole texts. The file is AI2's JSON lines."""

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.files import json_rows
from gguf_golf.evaluate.tasks.kind import TaskKind, TaskSettings, whole_answers
from gguf_golf.evaluate.tasks.question import Option, Question, question


def _read(settings: TaskSettings) -> list[Question]:
    found = []
    for number, row in json_rows(settings.file, {"question": object, "answerKey": object}):
        try:
            stem, choices = row["question"]["stem"], row["question"]["choices"]
            right = [choice["label"] for choice in choices].index(row["answerKey"])
            options = [Option(f"Question: {stem}\nAnswer:", " " + choice["text"]) for choice in choices]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{settings.file}, line {number}: not a question of ARC ({error})") from error
        found.append(question(str(row.get("id", number)), right, options))
    return found


ARC = TaskKind(
    "arc",
    TaskSettings,
    _read,
    primary="acc_norm",
    metrics=whole_answers,
    file="AI2's JSON lines `question.stem`, `question.choices[].text` and `.label`, `answerKey`",
    compared='the answers, after "Question: ... Answer:"',
)
