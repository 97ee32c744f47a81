"""HellaSwag: which of four endings follows. The file is llama.cpp's, of six lines per question."""

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.files import read_lines
from gguf_golf.evaluate.tasks.kind import TaskKind, TaskSettings, whole_answers
from gguf_golf.evaluate.tasks.question import Option, Question, question


def _read(settings: TaskSettings) -> list[Question]:
    path = settings.file
    lines = read_lines(path)
    if lines == [""]:
        return []
    if len(lines) % 6:
        raise InputError(f"{path}: {len(lines)} lines, not six per question")
    found = []
    for start in range(0, len(lines), 6):
        context, right, *endings = lines[start : start + 6]
        if right not in ("0", "1", "2", "3"):
            raise InputError(f"{path}, line {start + 2}: {right[:20]!r} is not the number of an ending, 0 to 3")
        options = [Option(context, " " + ending) for ending in endings]
        found.append(question(f"hellaswag-{start // 6}", int(right), options))
    return found


HELLASWAG = TaskKind(
    "hellaswag",
    TaskSettings,
    _read,
    primary="acc_norm",
    metrics=whole_answers,
    file="llama.cpp's `hellaswag_val_full.txt`: six lines per question (context, number of the right ending, four "
    "endings)",
    compared="the endings",
)
