"""Any GGUF as a model of lm-evaluation-harness (extra `[lm-eval]`), in-process, with prefix caching between choices.

    python -m gguf_golf.evaluate.lm_eval_model --model gguf-golf --model_args pretrained=FILE.gguf --tasks arc_easy

is `lm_eval` with the model class `gguf-golf` registered; every option is lm_eval's own.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from gguf_golf.errors import InputError
from gguf_golf.evaluate.chat_template import ChatTemplate
from gguf_golf.evaluate.generate import Sampling, stream
from gguf_golf.evaluate.loglikelihood import LikelihoodScorer, Request
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.threads import resolve

MAX_CHOICES = 16


@register_model("gguf-golf")
class GolfLM(LM):  # type: ignore[misc]  # lm-eval carries no types
    """The harness's interface on one GGUF file.

    Model arguments: `pretrained` (the file), `n_ctx` (2048, at most what the model was trained for), `threads` (all
    available CPUs), `max_gen_toks` (256).
    """

    def __init__(
        self,
        pretrained: str,
        n_ctx: int = 2048,
        threads: int | None = None,
        max_gen_toks: int = 256,
        **_harness: Any,  # batch_size, device and others that mean nothing here
    ) -> None:
        super().__init__()
        self._threads = resolve(None if threads is None else int(threads))
        self._max_gen_toks = int(max_gen_toks)
        self._model = LoadedModel(pretrained)
        self._template = ChatTemplate.of(self._model)
        self._scorer = LikelihoodScorer(self._model, max_choices=MAX_CHOICES, n_ctx=int(n_ctx), threads=self._threads)
        self._n_ctx = self._scorer.n_ctx

    @property
    def tokenizer_name(self) -> str:
        """Names the chat template in the harness's cache keys."""
        return self._model.path.name

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The history in the file's chat template. Raises InputError if the file has none."""
        return self._template.render(chat_history, add_generation_prompt)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(ln p, greedy) of each (context, continuation)."""
        pairs = [instance.args for instance in requests]
        order = sorted(range(len(pairs)), key=lambda index: pairs[index][0])  # neighbours share most
        found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        with tqdm(total=len(pairs), desc="loglikelihood", disable=disable_tqdm) as bar:
            for context, group in groupby(order, key=lambda index: pairs[index][0]):
                indices = list(group)
                scored = self._scorer.score([self._scorer.request(context, pairs[index][1]) for index in indices])
                for index, likelihood in zip(indices, scored, strict=True):
                    found[index] = (likelihood.total, likelihood.greedy)
                bar.update(len(indices))
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """ln p of whole texts, in windows of the context, each token predicted once."""
        found = []
        for instance in tqdm(requests, desc="loglikelihood_rolling", disable=disable_tqdm):
            tokens = self._model.tokenize(instance.args[0], parse_special=True).tolist()
            windows = get_rolling_token_windows(
                token_list=tokens,
                prefix_token=self._model.text_start,
                max_seq_len=self._n_ctx,
                context_len=1,
            )
            total = 0.0
            for context, continuation in map(make_disjoint_window, windows):
                whole = np.array([*context, *continuation], np.int32)
                total += self._scorer.score([Request(whole, len(context))])[0].total
            found.append(total)
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Text that follows each context, cut before the first of its stop strings.

        A context too long for its answer loses its beginning, as in the harness's own models. Raises InputError if the
        answer alone exceeds `n_ctx`.
        """
        found = []
        with self._model.context(self._n_ctx, n_batch=min(512, self._n_ctx), threads=self._threads) as context:
            for instance in tqdm(requests, desc="generate_until", disable=disable_tqdm):
                prompt, settings = instance.args
                stops = settings.get("until") or []
                stops = [stops] if isinstance(stops, str) else list(stops)
                n_predict = int(settings.get("max_gen_toks", self._max_gen_toks))
                temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample") else 0.0
                if n_predict >= self._n_ctx:
                    raise InputError(
                        f"max_gen_toks={n_predict} leaves no room for a prompt in a context of {self._n_ctx} tokens; "
                        f"lower it, or raise n_ctx (the model was trained for {self._model.n_ctx_train})"
                    )
                tokens = self._scorer.text_tokens(prompt)[-(self._n_ctx - n_predict) :]
                text = ""
                for piece in stream(context, tokens, n_predict, Sampling(temperature, settings.get("top_p", 1.0))):
                    text += piece
                    if any(stop in text for stop in stops):
                        break
                found.append(min((text.split(stop, 1)[0] for stop in stops), key=len, default=text))
        return found


if __name__ == "__main__":
    cli_evaluate()
