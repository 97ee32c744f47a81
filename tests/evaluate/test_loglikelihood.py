"""Likelihoods with shared prefixes against one plain decode for each request."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from gguf_golf.evaluate.loglikelihood import LikelihoodScorer, Request
from gguf_golf.runtime.session import LoadedModel


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Iterator[LoadedModel]:
    with LoadedModel(tiny("f32")) as loaded:
        yield loaded


def plain(model: LoadedModel, request: Request) -> tuple[float, bool]:
    """The definition: all logits of the whole text, in float64."""
    n = len(request.tokens)
    with model.context(n, threads=2) as context:
        logits = context.decode(request.tokens, np.arange(n, dtype=np.int32), np.ones(n, np.bool_)).copy()
    log_p = log_softmax(logits.astype(np.float64), 1)
    at = np.arange(request.start - 1, n - 1)
    targets = request.tokens[request.start :]
    return float(log_p[at, targets].sum()), bool((logits[at].argmax(1) == targets).all())


GROUPS = [
    ("The city of London is the", [" capital of England.", " capital", " largest city in the world, and more", " x"]),
    ("The city of London is the", [" capital of England."]),
    ("The city of Paris is the ", ["capital of France.", "end"]),
    ("", ["A text of its own", "A text"]),
    ("He said that the game was", [" the first of", " the first of"]),
]


@pytest.mark.parametrize("max_choices", [16, 2])
def test_equals_the_definition_whatever_is_shared(model: LoadedModel, max_choices: int) -> None:
    with LikelihoodScorer(model, max_choices=max_choices, n_ctx=256, threads=2) as scorer:
        for context, continuations in GROUPS:
            requests = [scorer.request(context, continuation) for continuation in continuations]
            for request, found in zip(requests, scorer.score(requests), strict=True):
                total, greedy = plain(model, request)
                assert found.total == pytest.approx(total, rel=1e-3, abs=1e-3)
                assert found.greedy == greedy
                assert found.tokens == len(request.tokens) - request.start


def test_different_contexts_of_one_continuation(model: LoadedModel) -> None:
    """As in Winogrande: what differs lies before what is scored."""
    with LikelihoodScorer(model, n_ctx=256, threads=2) as scorer:
        requests = [
            scorer.request(f"The cup did not fit because {noun}", " was too large.") for noun in ("it", "a box")
        ]
        for request, found in zip(requests, scorer.score(requests), strict=True):
            assert found.total == pytest.approx(plain(model, request)[0], rel=1e-3)


def test_a_long_request_is_cut_from_the_left(model: LoadedModel) -> None:
    with LikelihoodScorer(model, n_ctx=32, threads=2) as scorer:
        request = scorer.request("word " * 200, "and an end")
        assert len(request.tokens) == 33
        assert scorer.score([request])[0].tokens == len(request.tokens) - request.start


def test_a_greedy_continuation_is_found(model: LoadedModel) -> None:
    with LikelihoodScorer(model, n_ctx=256, threads=2) as scorer:
        request = scorer.request("In the United", " States")
        expected = plain(model, request)
        assert scorer.score([request])[0].greedy == expected[1]
        tokens = request.tokens.copy()
        with model.context(64, threads=2) as context:
            n = len(tokens) - 1
            logits = context.decode(tokens[:-1], np.arange(n, dtype=np.int32), np.arange(n) == n - 1)
            tokens[-1] = logits.argmax()
        assert scorer.score([Request(tokens, len(tokens) - 1)])[0].greedy
