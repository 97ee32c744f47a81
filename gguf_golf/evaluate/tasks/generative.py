"""Questions answered in writing: the model thinks aloud in its chat template, its last statement names a letter.

Several answers are generated at once. Nothing of a question or an answer is kept but ids and letters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError
from gguf_golf.evaluate.chat_template import ChatTemplate
from gguf_golf.evaluate.generate import Sampling, generate_many
from gguf_golf.evaluate.tasks.answers import Answers
from gguf_golf.evaluate.tasks.letter import extract
from gguf_golf.evaluate.tasks.question import LETTERS, Question
from gguf_golf.journal import Journal, open_journal
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import LoadedModel


@dataclass(frozen=True)
class GenerationSettings:
    """Tokens per answer, answers generated at once, temperature (0: greedy), and the seed of the sampling."""

    max_tokens: int = 1024
    concurrency: int = 4
    temperature: float = 0.0
    seed: int = 1


def ask(
    model_path: Path,
    questions: Sequence[Question],
    journal_path: Path,
    job: Any,
    settings: GenerationSettings,
    threads: int,
    name: str,
) -> Answers:
    """Ask every variant of every question; an answer without a letter is wrong.

    The journal holds the letter shown for each question and variant, never text; an interrupted run resumes from it.
    Raises InputError if a question and its answer exceed the model's context.
    """
    with open_journal(journal_path, job, wait=True) as journal:
        done = {(record["id"], record["variant"]) for record in journal.records}
        jobs = [(question, variant) for variant in range(len(questions[0].variants)) for question in questions]
        todo = [(question, variant) for question, variant in jobs if (question.id, variant) not in done]
        if todo:
            _generate(model_path, todo, journal, settings, threads, name)
        letters = {(record["id"], record["variant"]): record["letter"] for record in journal.records}
    return _count(questions, letters)


def _generate(
    model_path: Path,
    todo: list[tuple[Question, int]],
    journal: Journal,
    settings: GenerationSettings,
    threads: int,
    name: str,
) -> None:
    with (
        LoadedModel(model_path) as model,
        ProgressBar(total=len(todo), desc=f"{model_path.name} {name}", unit="q") as bar,
    ):
        texts = [question.variants[variant].shown[0].context for question, variant in todo]
        with ChatTemplate.of(model) as template:
            if template.source is None:
                prompts = [model.tokenize(text + "\n\n") for text in texts]
            else:
                chats = [template.render([{"role": "user", "content": text}]) for text in texts]
                prompts = [model.tokenize(chat, parse_special=True) for chat in chats]
        longest = max(len(prompt) for prompt in prompts) + settings.max_tokens
        if longest > model.n_ctx_train:
            raise InputError(
                f"{model_path}: the longest question and {settings.max_tokens} tokens of answer need {longest} tokens, "
                f"the model was trained for {model.n_ctx_train}; lower max_tokens"
            )
        samplings = [Sampling(settings.temperature, seed=settings.seed + variant) for _, variant in todo]
        for index, text in generate_many(
            model, prompts, settings.max_tokens, samplings, concurrency=settings.concurrency, threads=threads
        ):
            question, variant = todo[index]
            journal.add({"id": question.id, "variant": variant, "letter": extract(text)})
            bar.update()


def _count(questions: Sequence[Question], letters: dict[tuple[str, int], str | None]) -> Answers:
    """Mean over variants; the answer noted for a question is that of most variants, the earliest in a tie."""
    scores, chosen = [], []
    for question in questions:
        votes: list[int | None] = []
        for number, variant in enumerate(question.variants):
            letter = letters[question.id, number]
            votes.append(None if letter is None else variant.order[LETTERS.index(letter)])
        scores.append(sum(question.is_right(vote) for vote in votes) / len(votes))
        given = [vote for vote in votes if vote is not None]
        chosen.append(max(given, key=given.count) if given else None)
    right = [question.is_right(choice) for question, choice in zip(questions, chosen, strict=True)]
    return Answers([question.id for question in questions], {"acc": scores}, {"acc": chosen}, {"acc": right})
