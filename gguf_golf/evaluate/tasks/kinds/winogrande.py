"""WinoGrande: which of two options fits a sentence's blank. llama.cpp's CSV, or the authors' JSON lines."""

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.files import csv_rows, json_rows
from gguf_golf.evaluate.tasks.kind import TaskKind, TaskSettings, letters
from gguf_golf.evaluate.tasks.question import Option, Question, question


def _read(settings: TaskSettings) -> list[Question]:
    path = settings.file
    rows: list[tuple[str, str, str, str, str]] = []
    if path.suffix == ".jsonl":
        keys = {"sentence": str, "option1": str, "option2": str, "answer": object}
        for number, row in json_rows(path, keys):
            sentence, first, second, answer = (str(row[key]) for key in keys)
            rows.append((str(row.get("qID", number)), sentence, first, second, answer))
    else:
        for number, cells in csv_rows(path):
            if len(cells) != 5:
                raise InputError(f"{path}, line {number}: {len(cells)} columns, not 5")
            identity, sentence, first, second, answer = cells
            rows.append((identity, sentence, first, second, answer))
    found = []
    for identity, sentence, first, second, answer in rows:
        if "_" not in sentence or answer not in ("1", "2"):
            raise InputError(f"{path}, question {identity}: no `_` in the sentence, or an answer that is not 1 or 2")
        before, after = sentence.split("_", 1)
        options = [Option(before + option, " " + after.strip()) for option in (first, second)]
        found.append(question(f"winogrande-{identity}", int(answer) - 1, options, (first, second)))
    return found


WINOGRANDE = TaskKind(
    "winogrande",
    TaskSettings,
    _read,
    primary="acc",
    metrics=letters,  # both options are followed by the same text
    file="llama.cpp's CSV (number, sentence with `_`, two options, answer 1 or 2), or JSON lines `sentence`, "
    "`option1`, `option2`, `answer`",
    compared="the rest of the sentence after each option",
)
