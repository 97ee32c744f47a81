"""GPQA as a chat: the model thinks aloud, its last line names a letter. Several questions are generated at once."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.evaluate.generate import Sampling, generate_many, render_chat
from gguf_golf.evaluate.tasks import gpqa
from gguf_golf.evaluate.tasks.likelihood import Answers
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import LoadedModel

ANSWER = re.compile(r"answer\s*(?:is)?\s*:?\s*\**\s*\(?\$?([A-D])\b", re.IGNORECASE)
INSTRUCTION = (
    "Answer the following multiple-choice question. Think step by step before you answer. End with a line of the form "
    '"Answer: X", where X is one of A, B, C and D.'
)


@dataclass(frozen=True)
class Budget:
    """How long and how often: tokens per answer, repeats of each question, questions generated at once."""

    max_tokens: int = 1024
    repeats: int = 1
    concurrency: int = 4
    temperature: float = 0.0


def extract(text: str) -> str | None:
    """The letter of the last "Answer: X" (also "the answer is (X)") of a text; None if there is none."""
    found = ANSWER.findall(text)
    return found[-1].upper() if found else None


def ask(
    model_path: Path, records: Sequence[gpqa.Record], kept: Path, budget: Budget, seed: int, threads: int, name: str
) -> Answers:
    """Ask every record `budget.repeats` times; an answer without a letter is wrong.

    `kept` holds one JSON line per record and repeat, of id, repeat and letter shown, never text; it is continued where
    an earlier run left it. Raises InputError if a question and its budget exceed the model's context.
    """
    letters: dict[tuple[str, int], str | None] = {}
    if kept.exists():
        for line in kept.read_text().splitlines():
            row = json.loads(line)
            letters[row["id"], row["repeat"]] = row["letter"]
    jobs = [(record, repeat) for repeat in range(budget.repeats) for record in records]
    todo = [(record, repeat) for record, repeat in jobs if (record.id, repeat) not in letters]
    if todo:
        _generate(model_path, todo, letters, kept, budget, seed, threads, name)
    return _count(records, letters, budget.repeats, seed)


def _generate(
    model_path: Path,
    todo: list[tuple[gpqa.Record, int]],
    letters: dict[tuple[str, int], str | None],
    kept: Path,
    budget: Budget,
    seed: int,
    threads: int,
    name: str,
) -> None:
    with (
        LoadedModel(model_path) as model,
        kept.open("a") as file,
        ProgressBar(total=len(todo), desc=f"{model_path.name} {name}", unit="q") as bar,
    ):
        prompts = []
        for record, repeat in todo:
            order = _order(record, repeat, seed)
            text = INSTRUCTION + "\n\n" + gpqa.lettered(record, order, "{letter}) {answer}")
            chat = render_chat(model, text)
            prompts.append(model.tokenize(text + "\n\n" if chat is None else chat, parse_special=chat is not None))
        longest = max(len(prompt) for prompt in prompts) + budget.max_tokens
        if longest > model.n_ctx_train:
            raise InputError(
                f"{model_path}: the longest question and {budget.max_tokens} tokens of answer need {longest} tokens, "
                f"the model was trained for {model.n_ctx_train}; lower max_tokens"
            )
        samplings = [Sampling(budget.temperature, seed=seed + repeat) for _, repeat in todo]
        for index, text in generate_many(
            model, prompts, budget.max_tokens, samplings, concurrency=budget.concurrency, threads=threads
        ):
            record, repeat = todo[index]
            letters[record.id, repeat] = extract(text)
            file.write(json.dumps({"id": record.id, "repeat": repeat, "letter": letters[record.id, repeat]}) + "\n")
            file.flush()
            bar.update()


def _order(record: gpqa.Record, repeat: int, seed: int) -> tuple[int, ...]:
    return gpqa.orders(record, repeat + 1, seed)[repeat]


def _count(
    records: Sequence[gpqa.Record], letters: dict[tuple[str, int], str | None], repeats: int, seed: int
) -> Answers:
    """Mean over repeats; the answer noted for a record is that of most repeats, the earliest in a tie."""
    scores, chosen = [], []
    for record in records:
        votes: list[int | None] = []
        for repeat in range(repeats):
            letter = letters[record.id, repeat]
            votes.append(None if letter is None else _order(record, repeat, seed)["ABCD".index(letter)])
        scores.append(sum(vote == 0 for vote in votes) / repeats)
        given = [vote for vote in votes if vote is not None]
        chosen.append(max(given, key=given.count) if given else None)
    return Answers(
        [record.id for record in records],
        {"acc": scores},
        {"acc": chosen},
        {"acc": [choice == 0 for choice in chosen]},
    )
