"""Letters found in answers, and the generative road on golf-tiny."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gguf_golf.evaluate.generate import Sampling, generate_many, stream
from gguf_golf.evaluate.tasks import generative
from gguf_golf.evaluate.tasks.generative import Budget, extract
from gguf_golf.evaluate.tasks.gpqa import Record
from gguf_golf.runtime.session import LoadedModel


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("So it is heat.\nAnswer: C", "C"),
        ("Answer: A? No. Reconsider.\n\n**Answer:** (D)", "D"),
        ("answer: b", "B"),
        ("The answer is (A).", "A"),
        ("The correct answer is: $B$", "B"),
        ("Answer: Chlorine", None),
        ("I cannot tell", None),
        ("", None),
    ],
)
def test_extraction(text: str, letter: str | None) -> None:
    assert extract(text) == letter


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
    kept = tmp_path / "kept.jsonl"
    budget = Budget(max_tokens=8, repeats=2, concurrency=2)
    asked: list[int] = []

    def answers(model, prompts, n, samplings, **_):  # type: ignore[no-untyped-def]
        asked.append(len(prompts))
        assert all(isinstance(prompt, np.ndarray) for prompt in prompts)
        if len(prompts) == 6:
            yield 0, "private reasoning. Answer: A"
            raise KeyboardInterrupt
        yield from ((index, "nothing" if index else "Answer: B") for index in range(len(prompts)))

    monkeypatch.setattr(generative, "generate_many", answers)
    with pytest.raises(KeyboardInterrupt):
        generative.ask(tiny("q8_0"), records, kept, budget, 1, 2, "gpqa")
    found = generative.ask(tiny("q8_0"), records, kept, budget, 1, 2, "gpqa")
    again = generative.ask(tiny("q8_0"), records, kept, budget, 1, 2, "gpqa")
    assert asked == [6, 5]
    assert again == found
    assert "private" not in kept.read_text()
    assert "Secret" not in kept.read_text()
    assert {tuple(json.loads(line)) for line in kept.read_text().splitlines()} == {("id", "repeat", "letter")}
    first, second = (
        generative._order(record, 0, 1)["AB".index(letter)] for record, letter in zip(records, "AB", strict=False)
    )
    assert found.chosen["acc"] == [first, second, None]
    assert found.scores["acc"] == [(first == 0) / 2, (second == 0) / 2, 0]
