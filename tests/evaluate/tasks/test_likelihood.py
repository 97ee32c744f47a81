"""Counting answers, and asking a model: kept records, resumption."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_golf.errors import DataError
from gguf_golf.evaluate.tasks import likelihood
from gguf_golf.evaluate.tasks.kinds import gpqa
from gguf_golf.evaluate.tasks.kinds.gpqa import Record
from gguf_golf.evaluate.tasks.likelihood import BLOCK, ask, count
from gguf_golf.evaluate.tasks.question import Option, Question, Variant, question

GOLDEN = Path(__file__).parents[2] / "golden" / "lm_eval.json"


def record(*variants: list[tuple[float, int]]) -> list[list[dict[str, float | bool]]]:
    return [[{"total": total, "tokens": tokens, "greedy": False} for total, tokens in variant] for variant in variants]


def test_each_metric_normalises_its_way() -> None:
    asked = question("q", 1, [Option("c", " ab"), Option("c", " abcdefgh"), Option("c", " abcd")])
    found = count([asked], [record([(-2.0, 1), (-4.0, 4), (-1.5, 1)])])
    # sums -2, -4, -1.5; per character -1, -0.5, -0.375; per token -2, -1, -1.5
    assert found.chosen == {"acc": [2], "acc_norm": [2], "acc_token": [1]}
    assert found.scores == {"acc": [0.0], "acc_norm": [0.0], "acc_token": [1.0]}
    assert found.right["acc_token"] == [True]


def test_permutations_are_averaged_and_undone() -> None:
    letters = tuple(Option("p", f" {letter}") for letter in "AB")
    asked = Question("q", 0, (Variant(letters, (0, 1)), Variant(letters, (1, 0)), Variant(letters, (1, 0))))
    found = count([asked], [record([(-0.1, 1), (-3.0, 1)], [(-1.0, 1), (-1.1, 1)], [(-1.0, 1), (-0.5, 1)])])
    # right in the first and third order, wrong in the second; together clearly option 0
    assert found.scores["acc"] == [pytest.approx(2 / 3)]
    assert found.chosen["acc"] == [0]


def test_an_option_that_reads_like_the_right_one_is_right_too() -> None:
    options = [Option("c", " 4 eV"), Option("c", " 5 eV"), Option("c", " 4  eV\n"), Option("c", " 4 EV")]
    asked = question("q", 2, options)
    assert asked.twins == {0}
    assert asked.chance == 0.5
    found = count([asked], [record([(-1.0, 1), (-2.0, 1), (-2.0, 1), (-2.0, 1)])])
    assert found.right["acc"] == [True]
    assert found.scores["acc"] == [1.0]


def test_a_completion_counts_if_greedy() -> None:
    asked = [question(str(i), 0, [Option("c", " w")]) for i in range(2)]
    records = [[[{"total": -1.0, "tokens": 1, "greedy": hit}]] for hit in (True, False)]
    found = count(asked, records)
    assert (found.scores, found.chosen, found.right) == ({"acc": [1, 0]}, {"acc": [None, None]}, {"acc": [True, False]})


@pytest.mark.parametrize("form", ["letters", "answers"])
def test_gpqa_agrees_with_lm_evaluation_harness(tiny: Callable[[str], Path], tmp_path: Path, form: str) -> None:
    """The same prompts through the harness's Hugging Face class, its log-likelihoods noted in the golden file.

    With the harness installed, tests/evaluate/test_lm_eval_model.py compares the two on GPQA itself.
    """
    golden = json.loads(GOLDEN.read_text())
    records = [Record(row["id"], "", row["stem"], tuple(row["answers"])) for row in golden["records"]]
    ask(tiny("f32"), gpqa.questions(records, form, 2, 1), tmp_path / "journal", "job", 2, "gpqa")
    (_, block) = (tmp_path / "journal").read_text().splitlines()
    likelihoods = json.loads(block)["likelihoods"]
    found = [(o["total"], o["greedy"]) for variants in likelihoods for variant in variants for o in variant]
    assert [total for total, _ in found] == pytest.approx([total for total, _ in golden[form]], rel=2e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in golden[form]]


def test_nan_logits_name_the_file(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    poisoned = tmp_path / "poisoned.gguf"
    poisoned.write_bytes(tiny("bf16").read_bytes())
    reader = gguf.GGUFReader(poisoned, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight").data[:] = np.nan
    reader.data.flush()
    asked = [question("q", 0, [Option("The city", " of"), Option("The city", " is")])]
    with pytest.raises(DataError, match=r"poisoned\.gguf: .*NaN"):
        ask(poisoned, asked, tmp_path / "journal", "job", 2, "t")


def test_an_interrupted_task_gives_the_same(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        question(f"q{i}", i % 2, [Option(f"The number {i} is", " larger than"), Option(f"The number {i} is", " odd .")])
        for i in range(BLOCK + 7)
    ]
    real, calls = likelihood._variant, []

    def stop_after(limit: int) -> None:
        def variant(scorer, shown):  # type: ignore[no-untyped-def]
            calls.append(1)
            if len(calls) > limit:
                raise KeyboardInterrupt
            return real(scorer, shown)

        calls.clear()
        monkeypatch.setattr(likelihood, "_variant", variant)

    kept, whole = tmp_path / "journal", tmp_path / "whole"
    stop_after(BLOCK + 3)
    with pytest.raises(KeyboardInterrupt):
        ask(tiny("q4_0"), asked, kept, "job", 2, "t")
    stop_after(1000)
    resumed = ask(tiny("q4_0"), asked, kept, "job", 2, "t")
    assert len(calls) == 7
    assert ask(tiny("q4_0"), asked, kept, "job", 2, "t") == resumed
    assert len(calls) == 7
    assert ask(tiny("q4_0"), asked, whole, "job", 2, "t") == resumed
    assert kept.read_text() == whole.read_text()
