"""Generate text: sample token after token from a loaded model, with the chat template that the file carries."""

import codecs
import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.evaluate.chat_template import ChatTemplate
from gguf_golf.runtime.session import Context, LoadedModel, bindings


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedily at temperature 0, else top-p sampling from a seed."""

    temperature: float = 0.0
    top_p: float = 0.95
    seed: int = 0


def render_chat(model: LoadedModel, prompt: str) -> str | None:
    """The prompt as one user message in the file's chat template; None if the file has no template."""
    if model.chat_template() is None:
        return None
    return render_messages(model, [{"role": "user", "content": prompt}])


def render_messages(
    model: LoadedModel, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
) -> str:
    """Messages (role, content) in the file's chat template, in a process for this call: see `ChatTemplate.render`."""
    with ChatTemplate.of(model) as template:
        return template.render(messages, add_generation_prompt)


def stream(
    context: Context, prompt: NDArray[np.int32], n_predict: int, sampling: Sampling, *, held: int = 0
) -> Iterator[str]:
    """Text pieces that follow prompt tokens int32 [n], until the model ends its turn or `n_predict` tokens.

    The context must hold all. Its sequence 0 is overwritten, but for the first `held` < n tokens of the prompt, which a
    call before this one left there.
    """
    llama, model = bindings(), context.model
    if held == 0 or not context.forget(0, held):
        context.clear()
        held = 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    sampler = _sampler(sampling)
    try:
        position = held
        for start in range(held, len(prompt), context.n_batch):
            part = prompt[start : start + context.n_batch]
            last = np.arange(start, start + len(part)) == len(prompt) - 1
            context.decode(part, np.arange(start, start + len(part), dtype=np.int32), last)
            position = start + len(part)
        for produced in range(n_predict):
            token = llama.llama_sampler_sample(sampler, context._ctx, -1)
            if model.is_end_of_generation(token):
                break
            yield decoder.decode(model.piece(token))
            if produced + 1 < n_predict:
                context.decode(np.array([token], np.int32), np.array([position], np.int32), np.ones(1, np.bool_))
                position += 1
        yield decoder.decode(b"", final=True)
    finally:
        llama.llama_sampler_free(sampler)


def generate_many(
    model: LoadedModel,
    prompts: Sequence[NDArray[np.int32]],
    n_predict: int,
    samplings: Sequence[Sampling],
    *,
    concurrency: int,
    threads: int | None = None,
) -> Iterator[tuple[int, str]]:
    """(index of the prompt, whole answer) for every prompt, as they end; up to `concurrency` are generated together."""
    concurrency = min(concurrency, len(prompts))
    cells = max(len(prompt) for prompt in prompts) + n_predict
    with model.context(concurrency * cells, n_batch=512, n_seq_max=max(2, concurrency), threads=threads) as context:
        waiting = iter(range(len(prompts)))
        running: dict[int, _Answer] = {}
        while True:
            for slot in range(concurrency):
                if slot not in running and (index := next(waiting, None)) is not None:
                    running[slot] = _Answer(context, slot, index, prompts[index], samplings[index])
            if not running:
                return
            for slot, answer in list(running.items()):
                if answer.ended or len(answer.pieces) >= n_predict:
                    answer.close()
                    del running[slot]
                    yield answer.index, b"".join(answer.pieces).decode("utf-8", "replace")
            if running:
                _step(context, list(running.values()))


class _Answer:
    """One sequence that is being generated: its prompt is decoded, its first token chosen."""

    def __init__(self, context: Context, slot: int, index: int, prompt: NDArray[np.int32], sampling: Sampling) -> None:
        self.slot, self.index, self.position = slot, index, len(prompt)
        self.pieces: list[bytes] = []
        self.ended = False
        self._context, self._sampler = context, _sampler(sampling)
        context.forget(slot, 0)
        for start in range(0, len(prompt), context.n_batch):
            positions = np.arange(start, min(start + context.n_batch, len(prompt)), dtype=np.int32)
            last = positions == len(prompt) - 1
            context.decode(prompt[positions], positions, last, [(slot,)] * len(positions))
        self.choose(-1)

    def choose(self, row: int) -> None:
        """Sample the next token from the latest batch's logits of batch position `row`."""
        model = self._context.model
        self.token = bindings().llama_sampler_sample(self._sampler, self._context._ctx, row)
        self.ended = model.is_end_of_generation(self.token)
        if not self.ended:
            self.pieces.append(model.piece(self.token))

    def close(self) -> None:
        bindings().llama_sampler_free(self._sampler)


def _step(context: Context, answers: list[_Answer]) -> None:
    """One more token for each answer."""
    context.decode(
        np.array([answer.token for answer in answers], np.int32),
        np.array([answer.position for answer in answers], np.int32),
        np.ones(len(answers), np.bool_),
        [(answer.slot,) for answer in answers],
    )
    for row, answer in enumerate(answers):
        answer.position += 1
        answer.choose(row)


def run(
    path: str, prompt: str, n_predict: int, sampling: Sampling, *, chat: bool | None, threads: int | None
) -> Iterator[str]:
    """Load a GGUF and stream its answer. `chat` None means: the chat template if the file has one.

    Raises InputError if a template is asked for and absent, or if prompt and answer do not fit the model's context.
    """
    with LoadedModel(path) as model:
        if chat:
            text: str | None = render_messages(model, [{"role": "user", "content": prompt}])
        else:
            text = render_chat(model, prompt) if chat is None else None
        tokens = model.tokenize(prompt if text is None else text, parse_special=text is not None)
        if len(tokens) == 0:
            raise InputError("the prompt is empty; give one with -p")
        n_ctx = len(tokens) + n_predict
        if n_ctx > model.n_ctx_train:
            raise InputError(
                f"{path}: {len(tokens)} prompt tokens and {n_predict} more exceed the {model.n_ctx_train} that the "
                "model was trained for; shorten the prompt or lower -n"
            )
        with model.context(n_ctx, n_batch=min(n_ctx, 512), threads=threads) as context:
            yield from stream(context, tokens, n_predict, sampling)


def _sampler(sampling: Sampling) -> ctypes.c_void_p:
    llama = bindings()
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    if sampling.temperature <= 0:
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
    else:
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_p(sampling.top_p, 1))
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_temp(sampling.temperature))
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_dist(sampling.seed))
    return chain  # type: ignore[no-any-return]
