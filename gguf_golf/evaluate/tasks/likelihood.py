"""Ask a model all questions of a task by log-likelihood, and count. A journal keeps what is finished."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gguf_golf.evaluate.loglikelihood import Likelihood, LikelihoodScorer
from gguf_golf.evaluate.tasks.answers import Answers
from gguf_golf.evaluate.tasks.question import Question, Variant
from gguf_golf.journal import open_journal
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime.session import LoadedModel

# questions between two resets of the KV cache: a resumed run begins at a reset, and gives the same numbers
BLOCK = 20


def ask(
    model_path: Path, questions: Sequence[Question], journal_path: Path, job: Any, threads: int, name: str
) -> Answers:
    """Ask every question. The journal holds numbers alone, BLOCK questions per record; an interrupted run resumes."""
    starts = range(0, len(questions), BLOCK)
    with open_journal(journal_path, job, wait=True) as journal:
        done = {record["start"] for record in journal.records}
        if todo := [start for start in starts if start not in done]:
            width = max(question.n_options for question in questions)
            with (
                LoadedModel(model_path) as model,
                LikelihoodScorer(model, max_choices=width, threads=threads) as scorer,
                ProgressBar(total=len(questions), desc=f"{model_path.name} {name}", unit="q") as bar,
            ):
                bar.update(len(questions) - sum(len(questions[start : start + BLOCK]) for start in todo))
                for start in todo:
                    scorer.reset()
                    block = [[_variant(scorer, v) for v in q.variants] for q in questions[start : start + BLOCK]]
                    journal.add({"start": start, "likelihoods": block})
                    bar.update(len(block))
        blocks = {record["start"]: record["likelihoods"] for record in journal.records}
    return count(questions, [likelihoods for start in starts for likelihoods in blocks[start]])


def count(questions: Sequence[Question], records: Sequence[list[list[dict[str, Any]]]]) -> Answers:
    """Scores of every metric from likelihoods: for each question, each variant, each option as shown, a Likelihood."""
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
        found.right[metric] = [q.is_right(choice) for choice, q in zip(chosen, questions, strict=True)]
    return found


def _judge(question: Question, record: list[list[dict[str, Any]]], metric: str) -> tuple[float, int]:
    """(share of variants answered correctly, option with the largest mean log-probability over the variants)."""
    total = np.zeros(question.n_options)
    hits = 0
    for variant, likelihoods in zip(question.variants, record, strict=True):
        values = np.empty(question.n_options)
        for option, index, likelihood in zip(variant.shown, variant.order, likelihoods, strict=True):
            length = {"acc": 1, "acc_norm": option.characters, "acc_token": likelihood["tokens"]}[metric]
            values[index] = likelihood["total"] / length
        hits += question.is_right(int(values.argmax()))
        total += values - np.logaddexp.reduce(values)
    return hits / len(question.variants), int(total.argmax())


def _variant(scorer: LikelihoodScorer, variant: Variant) -> list[dict[str, Any]]:
    likelihoods: list[Likelihood] = scorer.score(
        [scorer.request(option.context, option.continuation) for option in variant.shown]
    )
    return [asdict(likelihood) for likelihood in likelihoods]
