"""Generated answers: batches, seeds, what is kept of them, on golf-tiny."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gguf_golf.evaluate.generate import Sampling, generate_many, stream
from gguf_golf.evaluate.tasks import generative
from gguf_golf.evaluate.tasks.answers import Answers
from gguf_golf.evaluate.tasks.generative import GenerationSettings
from gguf_golf.evaluate.tasks.kinds.gpqa import Record, prompts
from gguf_golf.runtime.session import LoadedModel


def test_batched_generation_equals_one_at_a_time(tiny: Callable[[str], Path]) -> None:
    prompts = ["The city of", "In 1998 , the", "He", "A long list of names and", "The game was"]
    with LoadedModel(tiny("f32")) as model:
        tokens = [model.tokenize(prompt) for prompt in prompts]
        together = dict(generate_many(model, tokens, 12, [Sampling()] * 5, concurrency=3, threads=2))
        with model.context(64, threads=2) as context:
            alone = ["".join(stream(context, prompt, 12, Sampling())) for prompt in tokens]
    assert [together[index] for index in range(5)] == alone


def test_a_seed_fixes_a_sample(tiny: Callable[[str], Path]) -> None:
    with LoadedModel(tiny("q8_0")) as model, model.context(64, threads=2) as context:
        prompt = model.tokenize("The city of")
        texts = ["".join(stream(context, prompt, 20, Sampling(1.0, seed=seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_answers_are_kept_as_letters_only_and_not_asked_again(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [Record(f"rec{i}", "", f"Secret stem {i}?", ("w", "x", "y", "z")) for i in range(3)]
    questions = prompts(records, 2, 1)
    journal = tmp_path / "journal.jsonl"
    settings = GenerationSettings(max_tokens=8, concurrency=2)
    asked: list[int] = []

    def answers(model, prompts, n, samplings, **_):  # type: ignore[no-untyped-def]
        asked.append(len(prompts))
        assert all(isinstance(prompt, np.ndarray) for prompt in prompts)
        if len(prompts) == 6:
            yield 0, "private reasoning. Answer: A"
            raise KeyboardInterrupt
        yield from ((index, "nothing" if index else "Answer: B") for index in range(len(prompts)))

    def ask() -> Answers:
        return generative.ask(tiny("q8_0"), questions, journal, "job", settings, 2, "gpqa")

    monkeypatch.setattr(generative, "generate_many", answers)
    with pytest.raises(KeyboardInterrupt):
        ask()
    found = ask()
    again = ask()
    assert asked == [6, 5]
    assert again == found
    text = journal.read_text()
    assert "private" not in text
    assert "Secret" not in text
    assert {tuple(json.loads(line)) for line in text.splitlines()[1:]} == {("id", "variant", "letter")}
    orders = [question.variants[0].order for question in questions]
    first, second = orders[0]["AB".index("A")], orders[1]["AB".index("B")]
    assert found.chosen["acc"] == [first, second, None]
    assert found.scores["acc"] == [(first == 0) / 2, (second == 0) / 2, 0]


def test_a_torn_journal_costs_one_answer(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = prompts([Record(f"rec{i}", "", "Stem?", ("w", "x", "y", "z")) for i in range(3)], 1, 1)
    journal = tmp_path / "journal.jsonl"
    asked: list[int] = []

    def answers(model, prompts, n, samplings, **_):  # type: ignore[no-untyped-def]
        asked.append(len(prompts))
        yield from ((index, "Answer: B") for index in range(len(prompts)))

    monkeypatch.setattr(generative, "generate_many", answers)
    whole = generative.ask(tiny("q8_0"), questions, journal, "job", GenerationSettings(8), 2, "gpqa")
    journal.write_bytes(journal.read_bytes()[:-9])
    assert generative.ask(tiny("q8_0"), questions, journal, "job", GenerationSettings(8), 2, "gpqa") == whole
    assert asked == [3, 1]
