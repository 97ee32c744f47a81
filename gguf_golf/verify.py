"""`gguf-golf verify`: whether a GGUF is the model of a checkpoint, by tokens and logits of transformers.

Not a measure of quantization: that is `gguf-golf eval`. It takes the [hf] extra, and memory for the checkpoint in F32.
"""

import importlib.util
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_golf.errors import InputError
from gguf_golf.models import open_model
from gguf_golf.models.upstream import INSTALL
from gguf_golf.runtime.session import LoadedModel

MAX_KL = 0.01
"""Nats; F16 keys and values and BF16 weights stay far below, a wrong position encoding or norm is far above."""
MAX_KL_QUANTIZED = 2.0
"""Only an altogether wrong model is above this; how good a quantization is, `eval` says."""


@dataclass(frozen=True)
class Verdict:
    """What was compared: texts that are tokenized otherwise, and the logits of `n_tokens` positions.

    `other_tokens` has one sentence for each; `kl` is the mean KL divergence in nats from transformers to the file,
    `agreement` the share of positions with the same most likely token.
    """

    other_tokens: list[str]
    kl: float
    agreement: float
    n_tokens: int
    max_kl: float

    @property
    def right(self) -> bool:
        """Whether the file is the checkpoint's model."""
        return not self.other_tokens and self.kl <= self.max_kl

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data, the verdict included."""
        return {"right": self.right, **asdict(self)}

    def __str__(self) -> str:
        tokens = f"tokens differ in {len(self.other_tokens)} texts" if self.other_tokens else "same tokens"
        return (
            f"{'right' if self.right else 'WRONG'}: {tokens}; logits at {self.n_tokens} positions: mean KL divergence "
            f"{self.kl:.2g} nats (at most {self.max_kl:g}), same top token {100 * self.agreement:.1f}%"
        )


def verify(
    checkpoint: Path, file: Path, *, n_tokens: int = 256, threads: int | None = None, trust_remote_code: bool = False
) -> Verdict:
    """Compare FILE with CHECKPOINT as transformers runs it, in F32, on awkward texts.

    Raises InputError where the extra is missing or either cannot be loaded.
    """
    model, tokenizer = load_reference(checkpoint, trust_remote_code=trust_remote_code)
    other = other_tokens(checkpoint, file)
    ids = token_ids(tokenizer, n_tokens)
    kl, agreement = compare(reference_logits(model, ids), file_logits(file, ids, threads=threads))
    plain = {tensor.source_type for tensor in open_model(file, allow_requantize=True).tensors if len(tensor.shape) > 1}
    limit = MAX_KL if plain <= {"F32", "F16", "BF16"} else MAX_KL_QUANTIZED
    return Verdict(other, kl, agreement, len(ids), limit)


def load_reference(checkpoint: Path, *, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """(model in F32, tokenizer) by transformers. Raises InputError where it cannot."""
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        raise InputError(f"comparing with the original takes {' and '.join(missing)}; {INSTALL}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings = {"dtype": torch.float32, "attn_implementation": "eager", "trust_remote_code": trust_remote_code}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, **settings)
        except ValueError:  # a class that sees images too
            model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint, **settings)
    except Exception as error:  # whatever a checkpoint can make transformers raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(f"{checkpoint}: transformers cannot load it ({reason})") from error
    return model.eval(), tokenizer


def other_tokens(checkpoint: Path, file: Path) -> list[str]:
    """The awkward texts that llama.cpp tokenizes otherwise than transformers, one sentence each."""
    from gguf_golf.models.tokens import check

    return check.compare(checkpoint, file)


def token_ids(tokenizer: Any, n_tokens: int) -> npt.NDArray[np.int32]:
    """`n_tokens` ids of awkward texts, first as one text and then backwards, until there are enough."""
    from gguf_golf.models.tokens import check

    ids = list(tokenizer("\n".join(check.AWKWARD))["input_ids"])
    while len(ids) < n_tokens:
        ids += ids[::-1]
    return np.array(ids[:n_tokens], np.int32)


def reference_logits(model: Any, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Logits of every position by transformers: f32 (n, vocab)."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids[None].astype(np.int64)), use_cache=False).logits
    return np.asarray(logits[0].float().numpy())


def file_logits(file: Path, ids: npt.NDArray[np.int32], *, threads: int | None = None) -> npt.NDArray[np.float32]:
    """Logits of every position by llama.cpp: f32 (n, vocab)."""
    with LoadedModel(file) as loaded, loaded.context(len(ids), threads=threads) as context:
        return context.decode(ids, np.arange(len(ids), dtype=np.int32), np.ones(len(ids), bool)).copy()


def compare(reference: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> tuple[float, float]:
    """(mean KL divergence in nats, share of positions with the same most likely token) of two (n, vocab)."""
    width = min(reference.shape[1], logits.shape[1])  # either may have padding
    p, q = (_log_softmax(values[:, :width].astype(np.float64)) for values in (reference, logits))
    kl = float((np.exp(p) * (p - q)).sum(-1).mean())
    return (kl if np.isfinite(kl) else float("inf")), float((p.argmax(-1) == q.argmax(-1)).mean())


def _log_softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = values - values.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
