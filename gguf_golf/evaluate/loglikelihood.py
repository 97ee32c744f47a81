"""Log-likelihoods of texts that follow other texts, the core of every multiple-choice task.

What the choices of one question share is decoded once, and what a question shares with the one before it (examples in a
few-shot prompt) is not decoded again: the KV cache holds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import DataError
from gguf_golf.evaluate.divergence import log_sum_exp
from gguf_golf.runtime.session import LoadedModel

N_CTX = 2048
MAX_OUTPUT_VALUES = 1 << 26  # logits of one batch: 256 MiB


@dataclass(frozen=True)
class Likelihood:
    """ln p(continuation | context) in nats, of `tokens` tokens; `greedy`: each of them was the most likely one."""

    total: float
    tokens: int
    greedy: bool


@dataclass(frozen=True)
class Request:
    """Tokens int32 [n] whose likelihood counts from index `start` >= 1 on."""

    tokens: NDArray[np.int32]
    start: int


class LikelihoodScorer:
    """Scores groups of requests on one context of `n_ctx` tokens (at most what the model was trained for).

    Use as a context manager.
    """

    def __init__(
        self, model: LoadedModel, *, max_choices: int = 16, n_ctx: int = N_CTX, threads: int | None = None
    ) -> None:
        self.model = model
        self.n_ctx = n_ctx = min(n_ctx, model.n_ctx_train)
        n_batch = min(512, n_ctx, max(32, MAX_OUTPUT_VALUES // model.n_vocab))
        self._context = model.context(n_ctx, n_batch=n_batch, n_seq_max=max_choices + 1, threads=threads)
        self._held: NDArray[np.int32] = np.empty(0, np.int32)  # what sequence 0 of the KV cache holds

    def __enter__(self) -> "LikelihoodScorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close()

    def reset(self) -> None:
        """Forget everything: what follows no longer depends on what was scored before, not even in rounding."""
        self._context.clear()
        self._held = np.empty(0, np.int32)

    def request(self, context: str, continuation: str) -> Request:
        """Tokens of context + continuation together, as a text has them; a context's last spaces join the continuation.

        The convention of lm-evaluation-harness: tokens of the whole less those of the context. Special tokens that the
        texts spell out are read as such, and BOS begins a text once. An empty context counts as the start of a text.
        """
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        whole = self.text_tokens(stripped + continuation)
        start = len(self.text_tokens(stripped)) if stripped else int(self.model.add_bos)
        if start == 0:  # no BOS of its own: the end-of-text token begins a text
            whole, start = np.concatenate([[self.model.text_start], whole]).astype(np.int32), 1
        return self._fitted(Request(whole, min(start, len(whole) - 1)))

    def text_tokens(self, text: str) -> NDArray[np.int32]:
        """Tokens int32 [n] of the beginning of a text, special tokens parsed; BOS once, where the model wants one."""
        model = self.model
        tokens = model.tokenize(text, add_special=False, parse_special=True)
        if model.add_bos and (len(tokens) == 0 or tokens[0] != model.bos):
            tokens = np.concatenate([[model.bos], tokens]).astype(np.int32)
        return tokens

    def score(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Likelihoods of requests that share a beginning, such as the choices of one question."""
        if len(requests) > self._context.n_seq_max - 1 or self._cells(requests) > self.n_ctx:
            if len(requests) == 1:
                raise AssertionError("a fitted request fits")
            middle = len(requests) // 2
            return self.score(requests[:middle]) + self.score(requests[middle:])
        inputs = [request.tokens[:-1] for request in requests]
        shared = _common_length(inputs)
        first = min(request.start for request in requests) - 1  # the first position whose prediction counts
        rows: list[dict[int, tuple[float, bool]]] = [{} for _ in requests]
        self._decode_shared(inputs[0][:shared], min(first, shared), requests, rows)
        self._decode_rest(inputs, shared, requests, rows)
        return [
            Likelihood(sum(p for p, _ in row.values()), len(row), all(greedy for _, greedy in row.values()))
            for row in rows
        ]

    def _cells(self, requests: Sequence[Request]) -> int:
        shared = _common_length([request.tokens[:-1] for request in requests])
        return shared + sum(len(request.tokens) - 1 - shared for request in requests)

    def _fitted(self, request: Request) -> Request:
        """The request cut from the left to fit the context, as lm-evaluation-harness does."""
        surplus = max(0, len(request.tokens) - 1 - self.n_ctx)
        return Request(request.tokens[surplus:], max(1, request.start - surplus))

    def _decode_shared(
        self,
        tokens: NDArray[np.int32],
        first: int,
        requests: Sequence[Request],
        rows: list[dict[int, tuple[float, bool]]],
    ) -> None:
        """Bring sequence 0 to `tokens`, with predictions from position `first` on credited to every request."""
        reuse = min(_common_length([self._held, tokens]), first)
        if reuse < len(self._held) and not self._context.forget(0, reuse):
            self._context.clear()  # recurrent models cannot drop a part
            reuse = 0
        for start in range(reuse, len(tokens), self._context.n_batch):
            positions = np.arange(start, min(start + self._context.n_batch, len(tokens)), dtype=np.int32)
            outputs = positions >= first
            logits = self._context.decode(tokens[positions], positions, outputs)
            wanted = [
                (row, request, int(position), index)
                for index, position in enumerate(positions[outputs])
                for row, request in zip(rows, requests, strict=True)
                if position >= request.start - 1
            ]
            self._credit(logits, wanted)
        self._held = tokens.copy()

    def _decode_rest(
        self,
        inputs: list[NDArray[np.int32]],
        shared: int,
        requests: Sequence[Request],
        rows: list[dict[int, tuple[float, bool]]],
    ) -> None:
        """Decode what is not shared, each request in a sequence of its own behind a copy of sequence 0."""
        pending = []
        for number, tokens in enumerate(inputs, 1):
            if len(tokens) > shared:
                self._context.copy_sequence(0, number)
                pending += [(number, position) for position in range(shared, len(tokens))]
        for start in range(0, len(pending), self._context.n_batch):
            part = pending[start : start + self._context.n_batch]
            outputs = np.array([position >= requests[number - 1].start - 1 for number, position in part])
            logits = self._context.decode(
                np.array([inputs[number - 1][position] for number, position in part], np.int32),
                np.array([position for _, position in part], np.int32),
                outputs,
                [(number,) for number, _ in part],
            )
            scored = [item for item, output in zip(part, outputs, strict=True) if output]
            wanted = [
                (rows[number - 1], requests[number - 1], position, index)
                for index, (number, position) in enumerate(scored)
            ]
            self._credit(logits, wanted)
        for number in range(1, len(inputs) + 1):
            self._context.forget(number, 0)

    def _credit(
        self, logits: NDArray[np.float32], wanted: list[tuple[dict[int, tuple[float, bool]], Request, int, int]]
    ) -> None:
        """Note ln p of the token after each wanted (row of results, request, position, row of logits)."""
        if not wanted:
            return
        try:
            largest, log_sum = log_sum_exp(logits)
        except DataError as error:
            raise DataError(f"{self.model.path}: {error}") from error
        best = logits.argmax(1)
        for row, request, position, index in wanted:
            target = int(request.tokens[position + 1])
            log_p = float(logits[index, target]) - float(largest[index]) - float(log_sum[index])
            row[position] = (log_p, int(best[index]) == target)


def _common_length(sequences: Sequence[NDArray[np.int32]]) -> int:
    """How many tokens all sequences begin with."""
    shortest = min(len(sequence) for sequence in sequences)
    first = sequences[0][:shortest]
    length = shortest
    for sequence in sequences[1:]:
        different = np.flatnonzero(first[:length] != sequence[:length])
        length = int(different[0]) if len(different) else length
    return length
