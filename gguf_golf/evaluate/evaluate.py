"""Measure a base and any number of models: texts, tasks, speed, sizes.

Everything finished is kept in the cache, so a run that was stopped resumes, and gives the same results.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.evaluate import perplexity, speed
from gguf_golf.evaluate.engine import Peer
from gguf_golf.evaluate.file_result import file_result
from gguf_golf.evaluate.on_text import BaseOnText, TextSettings
from gguf_golf.evaluate.results import ModelResult, TextMeasures, base_measures, chunk_means, model_measures
from gguf_golf.evaluate.suite import Suite
from gguf_golf.evaluate.tasks.task import TaskRun
from gguf_golf.runtime import rpc
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.session import check_gguf, is_repacked
from gguf_golf.threads import resolve

Values = TypeVar("Values", np.void, np.float32)
NOISE_UBATCH = 32  # fewer than perplexity.ROWS: other sums in another order


def evaluate(
    base: str | Path,
    quants: Sequence[str | Path],
    text: TextSettings,
    *,
    threads: int | None = None,
    noise_floor: bool = False,
) -> list[ModelResult]:
    """Measure the base and each model on one text: `run_suite` of a suite of that text."""
    return run_suite(Suite(None, (text,), noise_floor=noise_floor), base, quants, threads=threads)


def run_suite(
    suite: Suite,
    base: str | Path,
    quants: Sequence[str | Path],
    *,
    peers: Sequence[Peer] = (),
    threads: int | None = None,
) -> list[ModelResult]:
    """Measure the base, the noise floor if asked for, and each model; one result each, in this order.

    The noise floor is the base through another batch size, and each model that llama.cpp repacks (is_repacked) as it is
    stored.
    Where a suite has texts alone, `base` may be a file of base log-probabilities (then no base row). `peers` are models
    in other engines: they come last, and are measured on the texts alone. Raises InputError for files and texts that do
    not fit together, DataError for logits that are NaN.
    """
    threads = resolve(threads)
    base, paths = Path(base), [Path(quant) for quant in quants]
    for path in paths:
        check_gguf(path)
    cache = cache_dir() / "eval"
    texts = {text.label: BaseOnText(base, text, paths, cache, threads) for text in suite.texts}
    foreign = any(on_text.foreign for on_text in texts.values())
    if foreign and (suite.tasks or suite.speed or suite.noise_floor):
        raise InputError(
            f"{base}: log-probabilities can be the base of texts only, without a noise floor; name the base's GGUF"
        )
    results = [] if foreign else [file_result(base, "base")]
    files = [] if foreign else [base]
    if suite.noise_floor:
        again = [base, *(path for path in paths if texts and is_repacked(path))]
        results += [file_result(path, "noise-floor") for path in again]
        files += again
    results += [file_result(path, "quant") for path in paths]
    files += paths
    for result, file in zip(results, files, strict=True):
        if texts:
            _measure_texts(result, file, texts, threads, is_base=file == base)
    tested = [(result, file) for result, file in zip(results, files, strict=True) if result.role != "noise-floor"]
    _run_tasks(suite, tested, cache, threads)
    _measure_cost(suite, tested, cache)
    return results + [_judge(peer, texts, results[0].parameters, threads) for peer in peers]


def _judge(peer: Peer, texts: dict[str, BaseOnText], parameters: int, threads: int) -> ModelResult:
    """A model in another engine: of the base's number of parameters, as it is the same model."""
    result = ModelResult(peer.name, "quant", peer.sha256, peer.bytes, 8 * peer.bytes / parameters, parameters)
    if texts:
        _fill(result, {name: on_text.judge(peer, threads) for name, on_text in texts.items()}, texts, model_measures)
    return result


def _measure_texts(
    result: ModelResult, file: Path, texts: dict[str, BaseOnText], threads: int, *, is_base: bool
) -> None:
    """Every text alone, and all pooled where their chunks have one size (else the first text stands for all)."""
    if result.role == "base":
        losses = {name: on_text.nll for name, on_text in texts.items()}
        _fill(result, losses, texts, base_measures)
    else:
        is_noise = result.role == "noise-floor"
        ubatch, as_stored = NOISE_UBATCH if is_noise and is_base else perplexity.UBATCH, is_noise and not is_base
        scores = {name: on_text.compare(file, threads, ubatch, as_stored=as_stored) for name, on_text in texts.items()}
        _fill(result, scores, texts, model_measures)


def _fill(
    result: ModelResult,
    values: dict[str, NDArray[Values]],
    texts: dict[str, BaseOnText],
    measures: Callable[[NDArray[Values], int], TextMeasures],
) -> None:
    result.texts = {name: measures(chunks, texts[name].text_bytes) for name, chunks in values.items()}
    first, *others = values
    if not others or len({chunks.shape[1] for chunks in values.values()}) > 1:
        result.measures, result.chunks = result.texts[first], chunk_means(values[first])
        return
    pooled = np.concatenate(list(values.values()))
    result.measures = measures(pooled, sum(on_text.text_bytes for on_text in texts.values()))
    result.chunks = chunk_means(pooled)


def _run_tasks(suite: Suite, tested: Sequence[tuple[ModelResult, Path]], cache: Path, threads: int) -> None:
    for task in suite.tasks:
        run = TaskRun(task, cache, threads)
        base_answers = None
        for result, file in tested:
            answers = run.ask(file)
            result.tasks[task.name] = run.result(answers, base_answers)
            base_answers = base_answers or answers


def _measure_cost(suite: Suite, tested: Sequence[tuple[ModelResult, Path]], cache: Path) -> None:
    """Speed and memory, and the size of a compressed download."""
    if suite.speed is not None:
        key = [suite.speed.to_json(), rpc.endpoints(), *(result.sha256 for result, _ in tested)]
        journal = cache / "speed" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]}.jsonl"
        found = speed.measure_speed([file for _, file in tested], suite.speed, journal)
        for (result, _), measured in zip(tested, found, strict=True):
            result.speed = measured
    if suite.zstd:
        for result, file in tested:
            result.bytes_zstd = speed.zstd_bytes(file, cache / "zstd" / result.sha256)
