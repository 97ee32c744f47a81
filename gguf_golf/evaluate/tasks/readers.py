"""Questions from the plain files in which public benchmarks come. Prompts are those of lm-evaluation-harness.

| kind | file |
|---|---|
| hellaswag | six lines a question: context, number of the right ending, four endings (llama.cpp's file) |
| winogrande | CSV without header: number, sentence with `_`, two options, answer 1 or 2 (llama.cpp's); or JSON lines |
| arc | JSON lines of AI2: `question.stem`, `question.choices[].text/label`, `answerKey` |
| piqa | JSON lines `goal`, `sol1`, `sol2`, and `labels`: a file with 0 or 1 a line |
| mmlu | a CSV, or a folder of them, of question, four choices, answer (A-D or 0-3); `dev`: the same for examples |
| lambada | JSON lines `text`: the last word is to be found |

Every reader raises InputError, naming file and line, where a file is not what its kind says.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.question import Option, Question, question

LETTERS = "ABCDEFGHIJ"
MMLU_SHOTS = 5


def read_questions(kind: str, path: Path, *, extra: Path | None = None, shots: int = MMLU_SHOTS) -> list[Question]:
    """All questions of a file of the given kind. `extra` is PIQA's label file, or MMLU's folder of examples.

    Raises InputError for an unknown kind, an absent or empty file, or one that is not of this kind.
    """
    if kind not in KINDS:
        raise InputError(f"there is no task of kind {kind!r}; known are {', '.join(KINDS)} and gpqa")
    for needed in (path, extra):
        if needed is not None and not needed.exists():
            raise InputError(f"{needed}: no such file")
    if kind == "mmlu":
        questions = _mmlu(path, extra, shots)
    elif kind == "piqa":
        if extra is None:
            raise InputError(f"{path}: PIQA keeps its answers apart; name that file as `labels`")
        questions = _piqa(path, extra)
    else:
        questions = READERS[kind](path)
    if not questions:
        raise InputError(f"{path}: holds no questions")
    return questions


def _hellaswag(path: Path) -> list[Question]:
    lines = _text(path).splitlines()
    if len(lines) % 6:
        raise InputError(f"{path}: {len(lines)} lines are not six for each question")
    found = []
    for start in range(0, len(lines), 6):
        context, right, *endings = lines[start : start + 6]
        if right not in ("0", "1", "2", "3"):
            raise InputError(f"{path}, line {start + 2}: {right[:20]!r} is no number of an ending")
        found.append(question(f"hellaswag-{start // 6}", int(right), [Option(context, " " + e) for e in endings]))
    return found


def _winogrande(path: Path) -> list[Question]:
    found = []
    rows: list[tuple[Any, ...]] = []
    if path.suffix == ".jsonl":
        rows = [
            (line.get("qID", str(number)), line["sentence"], line["option1"], line["option2"], line["answer"])
            for number, line in _json_lines(path, ("sentence", "option1", "option2", "answer"))
        ]
    else:
        for number, cells in enumerate(csv.reader(_text(path).splitlines()), 1):
            if len(cells) != 5:
                raise InputError(f"{path}, line {number}: {len(cells)} columns, not 5")
            rows.append((cells[0], *cells[1:]))
    for identity, sentence, first, second, answer in rows:
        if "_" not in sentence or str(answer) not in ("1", "2"):
            raise InputError(f"{path}, question {identity}: no `_` in the sentence, or an answer that is not 1 or 2")
        before, after = sentence.split("_", 1)
        options = [Option(before + option, " " + after.strip()) for option in (first, second)]
        found.append(question(f"winogrande-{identity}", int(answer) - 1, options))
    return found


def _arc(path: Path) -> list[Question]:
    found = []
    for number, line in _json_lines(path, ("question", "answerKey")):
        try:
            stem, choices = line["question"]["stem"], line["question"]["choices"]
            right = [choice["label"] for choice in choices].index(line["answerKey"])
            options = [Option(f"Question: {stem}\nAnswer:", " " + choice["text"]) for choice in choices]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: not a question of ARC ({error})") from error
        found.append(question(str(line.get("id", number)), right, options))
    return found


def _piqa(path: Path, labels_path: Path) -> list[Question]:
    labels = _text(labels_path).split()
    rows = list(_json_lines(path, ("goal", "sol1", "sol2")))
    if len(labels) != len(rows) or not set(labels) <= {"0", "1"}:
        raise InputError(f"{labels_path}: {len(labels)} labels (0 or 1) for {len(rows)} questions of {path}")
    return [
        question(
            f"piqa-{number}",
            int(label),
            [Option(f"Question: {row['goal']}\nAnswer:", " " + row[key]) for key in ("sol1", "sol2")],
        )
        for label, (number, row) in zip(labels, rows, strict=True)
    ]


def _lambada(path: Path) -> list[Question]:
    found = []
    for number, row in _json_lines(path, ("text",)):
        context, _, word = row["text"].rstrip().rpartition(" ")
        if not context:
            raise InputError(f"{path}, line {number}: a text of one word has nothing to complete")
        found.append(question(f"lambada-{number}", 0, [Option(context, " " + word)]))
    return found


def _mmlu(path: Path, dev: Path | None, shots: int) -> list[Question]:
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    found = []
    for file in files:
        subject = file.stem.removesuffix("_test").removesuffix("_val").removesuffix("_dev")
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        if dev is not None and shots:
            examples = dev / f"{subject}_dev.csv" if dev.is_dir() else dev
            if not examples.is_file():
                raise InputError(f"{examples}: no such file; MMLU's examples for {file.name} are expected there")
            for stem, choices, right in list(_mmlu_rows(examples))[:shots]:
                head += f"{_lettered(stem, choices)} {LETTERS[right]}\n\n"
        for number, (stem, choices, right) in enumerate(_mmlu_rows(file)):
            prompt = head + _lettered(stem, choices)
            options = [Option(prompt, f" {letter}") for letter in LETTERS[: len(choices)]]
            found.append(question(f"{subject}-{number}", right, options))
    return found


def _mmlu_rows(path: Path) -> Iterator[tuple[str, list[str], int]]:
    with path.open(newline="", encoding="utf-8") as file:
        for number, cells in enumerate(csv.reader(file), 1):
            if number == 1 and cells and cells[-1].strip().lower() == "answer":
                continue
            if len(cells) != 6:
                raise InputError(f"{path}, row {number}: {len(cells)} columns, not question, four choices and answer")
            answer = cells[5].strip()
            right = "ABCD".find(answer) if answer in "ABCD" and answer else "0123".find(answer)
            if not answer or right < 0:
                raise InputError(f"{path}, row {number}: the answer {answer[:20]!r} is none of A-D or 0-3")
            yield cells[0], cells[1:5], right


def _lettered(stem: str, choices: list[str]) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([stem.strip(), *lines, "Answer:"])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{path}: not a UTF-8 text file") from error


def _json_lines(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error.msg})") from error
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise InputError(f"{path}, line {number}: has no {', '.join(missing)}")
        yield number, row


READERS: dict[str, Callable[[Path], list[Question]]] = {
    "hellaswag": _hellaswag,
    "winogrande": _winogrande,
    "arc": _arc,
    "lambada": _lambada,
}
KINDS = (*sorted(READERS), "mmlu", "piqa")
