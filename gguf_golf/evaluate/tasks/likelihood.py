"""Ask a model all questions of a task by log-likelihood, keeping finished ones in a file, and count."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gguf_golf.evaluate.loglikelihood import Likelihood, LikelihoodScorer
from gguf_golf.evaluate.tasks.question import Question, Variant
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import LoadedModel

# questions between two resets of the KV cache: a resumed run starts at one and gives the same numbers
BLOCK = 20


@dataclass(frozen=True)
class Answers:
    """What a model answered, by metric: for each question a score from 0 to 1 and the chosen option, if any."""

    ids: list[str]
    scores: dict[str, list[float]]
    chosen: dict[str, list[int | None]]
    right: dict[str, list[bool]]


def ask(model_path: Path, questions: Sequence[Question], kept: Path, threads: int, name: str) -> Answers:
    """Ask every question; `kept` (JSON lines of numbers, no text) is continued where an earlier run left it."""
    records = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    records = records[: len(records) // BLOCK * BLOCK] if len(records) < len(questions) else records
    if len(records) < len(questions):
        width = max(question.n_options for question in questions)
        with (
            LoadedModel(model_path) as model,
            LikelihoodScorer(model, max_choices=width, threads=threads) as scorer,
            ProgressBar(total=len(questions), initial=len(records), desc=f"{model_path.name} {name}", unit="q") as bar,
        ):
            _keep(kept, records)
            for start in range(len(records), len(questions), BLOCK):
                scorer.reset()
                block = [[_variant(scorer, v) for v in q.variants] for q in questions[start : start + BLOCK]]
                records += block
                _keep(kept, records)
                bar.update(len(block))
    return count(questions, records)


def count(questions: Sequence[Question], records: Sequence[list[list[dict[str, Any]]]]) -> Answers:
    """Scores of every metric from records: for each question, each variant, each option as shown, a Likelihood."""
    if questions[0].n_options == 1:
        hits = [record[0][0]["greedy"] for record in records]
        return Answers(
            [question.id for question in questions],
            {"acc": [float(hit) for hit in hits]},
            {"acc": [None] * len(hits)},
            {"acc": list(hits)},
        )
    found = Answers([question.id for question in questions], {}, {}, {})
    for metric in ("acc", "acc_norm", "acc_token"):
        scores, chosen = [], []
        for question, record in zip(questions, records, strict=True):
            share, choice = _judge(question, record, metric)
            scores.append(share)
            chosen.append(choice)
        found.scores[metric] = scores
        found.chosen[metric] = list(chosen)
        found.right[metric] = [choice == q.right for choice, q in zip(chosen, questions, strict=True)]
    return found


def _judge(question: Question, record: list[list[dict[str, Any]]], metric: str) -> tuple[float, int]:
    """(share of variants answered rightly, option with the largest mean log-probability over the variants)."""
    total = np.zeros(question.n_options)
    hits = 0
    for variant, likelihoods in zip(question.variants, record, strict=True):
        values = np.empty(question.n_options)
        for option, index, likelihood in zip(variant.shown, variant.order, likelihoods, strict=True):
            length = {"acc": 1, "acc_norm": option.characters, "acc_token": likelihood["tokens"]}[metric]
            values[index] = likelihood["total"] / length
        hits += int(values.argmax()) == question.right
        total += values - np.logaddexp.reduce(values)
    return hits / len(question.variants), int(total.argmax())


def _variant(scorer: LikelihoodScorer, variant: Variant) -> list[dict[str, Any]]:
    likelihoods: list[Likelihood] = scorer.score(
        [scorer.request(option.context, option.continuation) for option in variant.shown]
    )
    return [asdict(likelihood) for likelihood in likelihoods]


def _keep(path: Path, records: Sequence[Any]) -> None:
    aside = path.with_name(path.name + ".partial")
    aside.write_text("".join(json.dumps(record) + "\n" for record in records))
    aside.replace(path)
