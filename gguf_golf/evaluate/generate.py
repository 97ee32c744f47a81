"""Generate text: sample token after token from a loaded model, with the chat template that the file carries."""

import codecs
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import jinja2
import jinja2.sandbox
import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.runtime.session import Context, LoadedModel, bindings


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedily at temperature 0, else top-p sampling from a seed."""

    temperature: float = 0.0
    top_p: float = 0.95
    seed: int = 0


def render_chat(model: LoadedModel, prompt: str) -> str | None:
    """The prompt as one user message in the file's chat template; None if the file has no template."""
    source = model.chat_template()
    if source is None:
        return None

    def refuse(message: str) -> None:
        raise InputError(f"{model.path}: its chat template refuses the prompt: {message}")

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(source).render(
            messages=[{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            bos_token="",  # the tokenizer adds it
            eos_token=model.piece(model.eos, special=True).decode("utf-8", "replace") if model.eos >= 0 else "",
        )
    except jinja2.TemplateError as error:
        raise InputError(f"{model.path}: its chat template cannot be rendered ({error}); try --raw") from error


def stream(context: Context, prompt: NDArray[np.int32], n_predict: int, sampling: Sampling) -> Iterator[str]:
    """Text pieces that follow prompt tokens int32 [n], until the model ends its turn or `n_predict` tokens.

    Sequence 0 of the context is overwritten. The context must hold all.
    """
    llama, model = bindings(), context.model
    context.clear()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    sampler = _sampler(sampling)
    try:
        position = 0
        for start in range(0, len(prompt), context.n_batch):
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


def run(
    path: str, prompt: str, n_predict: int, sampling: Sampling, *, chat: bool | None, threads: int | None
) -> Iterator[str]:
    """Load a GGUF and stream its answer. `chat` None means: the chat template if the file has one.

    Raises InputError if a template is asked for and absent, or if prompt and answer do not fit the model's context.
    """
    with LoadedModel(path) as model:
        text = None if chat is False else render_chat(model, prompt)
        if chat and text is None:
            raise InputError(f"{path}: carries no chat template; use --raw")
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
