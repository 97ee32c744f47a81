"""The verdict: which file, how certain, and when there is none. Dominance is checked by trying all pairs."""

import math
import re
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from gguf_golf.evaluate import bootstrap
from gguf_golf.report import paired
from gguf_golf.report.axes import axes
from gguf_golf.report.merge import merge
from gguf_golf.report.results import Results, read
from gguf_golf.report.retained import shares
from gguf_golf.report.verdict import Verdict, decide, dominated, frontier
from tests.report.documents import base, document, ladder, quant, task


def load(*models: dict[str, Any], **settings: Any) -> Results:
    return merge([read(document(*models, **settings))])


def verdict_of(*models: dict[str, Any]) -> Verdict:
    results = load(*models)
    return decide(results, axes(results))


def test_the_smallest_file_that_stays_close_is_taken() -> None:
    verdict = verdict_of(*ladder())
    assert [step.model.label for step in verdict.ladder] == ["tiny", "tcq3", "q4", "q8"]
    assert verdict.headline.startswith("Take golf-tcq3.gguf (3.00 MB, 19% of the original's 16.0 MB): ")
    assert "in 93 of 100 places and its perplexity is 2.0% higher." in verdict.headline
    assert verdict.advice[0] == "If you have 1.00 MB more, q4 halves the damage."
    assert verdict.advice[1] == "Under 3.00 MB, take tiny (1.00 MB) with 25 times the damage."
    assert verdict.advice[-1].startswith("tcq3 needs gguf-golf's runtime; for plain llama.cpp take q4 (4.00 MB")
    (skipped,) = verdict.skipped
    assert (skipped.model.label, skipped.rival.label) == ("wasteful", "tcq3")
    assert skipped.reason == "tcq3 is no larger and better: clear, 29 standard errors"
    assert verdict.evidence[0].startswith("Clear: the next best file that is no larger, tiny,")


def test_a_larger_file_within_the_error_is_not_worth_its_bytes() -> None:
    close = verdict_of(base(), quant("a", 1000, 0.020, se=0.002), quant("b", 2000, 0.018, se=0.002))
    assert [step.model.label for step in close.ladder] == ["a"]
    assert "No larger file here is better by more than the measurement error." in close.advice
    apart = verdict_of(base(), quant("a", 1000, 0.020, se=0.0005), quant("b", 2000, 0.018, se=0.0005))
    (_, step) = apart.ladder
    assert step.errors == pytest.approx(0.002 / math.hypot(0.0005, 0.0005))
    assert step.certainty == "probable"


def in_chunks(model: dict[str, Any], *kld: float) -> dict[str, Any]:
    return {**model, "kld_mean": sum(kld) / len(kld), "chunks": {"kld": list(kld)}}


def test_files_are_paired_chunk_by_chunk() -> None:
    # both vary much from chunk to chunk, and by nearly the same: only the pairs tell them apart
    a = in_chunks(quant("a", 1000, 0.20, se=0.04), 0.10, 0.30, 0.20, 0.20)
    b = in_chunks(quant("b", 2000, 0.18, se=0.04), 0.08, 0.27, 0.18, 0.19)
    (_, step) = verdict_of(base(), a, b).ladder
    differences = np.array([0.02, 0.03, 0.02, 0.01])
    assert step.errors == pytest.approx(differences.mean() / scipy.stats.sem(differences))
    assert step.certainty == "clear"
    assert "standard errors apart when compared chunk by chunk." in verdict_of(base(), a, b).evidence[0]
    b["chunks"] = {"kld": [0.08, 0.27, 0.18]}  # other chunks: nothing to pair
    assert [step.model.label for step in verdict_of(base(), a, b).ladder] == ["a"]


def test_the_paired_error_is_that_of_the_block_bootstrap() -> None:
    generator = np.random.default_rng(1)
    shared = generator.gamma(4, 0.01, 60)
    one, other = (shared * factor + generator.normal(0, 0.001, 60) for factor in (1, 1.1))
    results = load(base(), in_chunks(quant("a", 1000, 0.1), *one), in_chunks(quant("b", 2000, 0.1), *other))
    bootstrapped = bootstrap.mean_error((one - other)[:, None])
    assert paired.by_chunk(*results.quants, "kld") == pytest.approx(bootstrapped, rel=0.05)


def test_files_are_paired_question_by_question() -> None:
    lost = {"a": (["q1", "q2", "q3"], ["q4"]), "b": (["q1", "q5"], ["q4", "q6", "q7"])}
    tasks = {
        label: {"arc": task(0.5, 0.45, 0.55, lost=gone, gained=new, mcnemar_p=0.5)}
        for label, (gone, new) in lost.items()
    }
    results = load(base(), *(quant(label, 1000, None, tasks=tasks[label]) for label in lost))
    right = {label: np.array([1.0] * 100 + [0.0] * 100) for label in lost}  # 200 questions, the base has the first half
    place = {"q1": 0, "q2": 1, "q3": 2, "q5": 3, "q4": 100, "q6": 101, "q7": 102}
    for label, (gone, new) in lost.items():
        right[label][[place[key] for key in gone]] = 0
        right[label][[place[key] for key in new]] = 1
    expected = scipy.stats.sem(right["a"] - right["b"])
    assert paired.by_question(*results.quants, "arc") == pytest.approx(expected)


def test_what_is_below_the_noise_floor_is_the_original() -> None:
    floor = {**quant("floor", 16_000_000, 0.001, se=0.0001), "role": "noise-floor"}
    verdict = verdict_of(base(), floor, quant("a", 1000, 0.0011, se=1e-6), quant("b", 2000, 0.0004, se=1e-6))
    assert [step.model.label for step in verdict.ladder] == ["a"]  # the step to b is smaller than the noise
    assert verdict.ladder[0].band == "indistinguishable from the original"
    assert any(sentence.startswith("Noise floor:") for sentence in verdict.evidence)


def test_files_that_are_repacked_are_named_with_how_much_that_moves_them() -> None:
    floor = {**quant("floor", 16_000_000, 0.001), "role": "noise-floor"}
    moved, other = quant("q4", 2000, 0.0425), quant("tcq3", 1000, 0.09)
    stored = {**quant("q4", 2000, 0.0420), "role": "noise-floor"}
    (said,) = [line for line in verdict_of(base(), floor, stored, moved, other).evidence if "repacked" in line]
    assert said.startswith("q4 is repacked for this processor") and "by up to 0.00050;" in said
    assert not any("repacked" in line for line in verdict_of(base(), floor, moved, other).evidence)


def test_when_no_file_is_close_it_says_so() -> None:
    verdict = verdict_of(base(), quant("a", 1000, 0.9), quant("b", 2000, 0.4))
    assert verdict.headline.startswith("No file here stays close to the original; the least damaged is golf-b.gguf")


def test_without_errors_no_certainty_is_claimed() -> None:
    models = [quant("a", 1000, 0.9), quant("b", 2000, 0.04)]
    for model in models:
        model["kld_se"] = None
    verdict = verdict_of(base(), *models)
    assert verdict.ladder[1].certainty == "not known: no error was measured"
    assert any("without error estimates" in sentence for sentence in verdict.evidence)


def test_an_axis_at_chance_carries_no_verdict_and_retains_nothing() -> None:
    lucky = task(0.30, 0.24, 0.36, lost=["q1"], gained=["q2"], mcnemar_p=0.5, retained=3.0)
    models = base(tasks={"gpqa": task(0.26, 0.20, 0.33)}), quant("q4", 1000, None, tasks={"gpqa": lucky})
    results = load(*models)
    found = axes(results)
    verdict = decide(results, found)
    assert verdict.pick is None and verdict.headline.startswith("No verdict")
    assert "not above chance: 26.0% (20.0 to 33.0) where guessing gives 25.0%" in verdict.evidence[0]
    (share,) = shares(results, found)
    assert share.values == [None] and share.note is not None


def test_at_chance_no_file_is_dominated() -> None:
    def at(score: float) -> dict[str, Any]:
        return {"gpqa": task(score, score - 0.01, score + 0.01)}

    for base_score, worse in ((0.26, []), (0.5, ["b"])):
        chance = base(tasks={"gpqa": task(base_score, base_score - 0.1, base_score + 0.1)})
        results = load(chance, quant("a", 1000, None, tasks=at(0.4)), quant("b", 2000, None, tasks=at(0.2)))
        (axis,) = axes(results)
        assert [model.label for model in dominated(results, axis)] == worse


def test_a_task_alone_can_decide() -> None:
    kept = {"lost": ["q1"], "gained": [], "mcnemar_p": 1.0, "retained": 0.9, "retained_low": 0.8, "retained_high": 1.0}
    verdict = verdict_of(
        base(tasks={"arc": task(0.60, 0.55, 0.65)}),
        quant("a", 1000, None, tasks={"arc": task(0.30, 0.25, 0.35, **kept)}),
        quant("b", 2000, None, tasks={"arc": task(0.57, 0.52, 0.62, **kept)}),
    )
    assert verdict.pick is not None and verdict.pick.model.label == "b"
    assert any("arc: b answers 57.0% correctly, the original 60.0%" in sentence for sentence in verdict.evidence)


def test_retained_is_the_share_above_chance() -> None:
    results = load(base(), quant("q4", 1000, 0.1))
    by_title = {share.title: share.values[0] for share in shares(results, axes(results))}
    predicted, agreed = by_title["Text prediction"], by_title["Same next token"]
    assert predicted is not None and agreed is not None
    score, original, chance = -math.log(20 * math.exp(0.05)), -math.log(20), -math.log(1000)
    assert predicted.value == pytest.approx((score - chance) / (original - chance))
    assert agreed.value == pytest.approx(1 - math.sqrt(0.1) / 3)
    assert "Damage (KL divergence)" not in by_title


def test_an_axis_that_disagrees_is_named() -> None:
    verdict = verdict_of(base(), quant("a", 1000, 0.3, top1=0.9), quant("b", 2000, 0.03, top1=0.8))
    assert "Same next token disagrees on b and a, beyond its error." in verdict.evidence


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8))
def test_frontier_and_dominated_by_trying_all_pairs(pairs: list[tuple[int, int]]) -> None:
    results = load(base(), *(quant(f"m{i}", size, kld / 10, se=0.0) for i, (size, kld) in enumerate(pairs)))
    (axis, *_) = axes(results)
    points = {model.label: (model.bytes, model.measures["kld_mean"]) for model in results.quants}
    expected = {
        name
        for name, (size, kld) in points.items()
        if any(other <= size and damage < kld for other, damage in points.values())
    }
    assert {model.label for model in dominated(results, axis)} == expected
    best = [points[model.label] for model in frontier(results, axis)]
    assert best == sorted(best) and set(best) == {
        (size, kld)
        for size, kld in points.values()
        if not any(o <= size and d <= kld and (o, d) != (size, kld) for o, d in points.values())
    }


def test_sentences_hold_no_placeholders() -> None:
    verdict = verdict_of(*ladder())
    for sentence in (verdict.headline, *verdict.advice, *verdict.evidence):
        assert re.search(r"None|nan|inf\b|[{}]", sentence) is None, sentence
