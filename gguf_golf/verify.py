"""`gguf-golf verify`: whether a GGUF is the model of a checkpoint, by tokens and logits of transformers.

Not a measure of quantization: that is `gguf-golf eval`. It takes the [hf] extra, and memory for the checkpoint in F32.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_golf.evaluate.transformers_engine import TransformersEngine
from gguf_golf.models import open_model
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
    reference = TransformersEngine(checkpoint, trust_remote_code=trust_remote_code)
    other = other_tokens(checkpoint, file)
    ids = token_ids(reference, n_tokens)
    kl, agreement = compare(reference.logits(ids), file_logits(file, ids, threads=threads))
    plain = {tensor.source_type for tensor in open_model(file, allow_requantize=True).tensors if len(tensor.shape) > 1}
    limit = MAX_KL if plain <= {"F32", "F16", "BF16"} else MAX_KL_QUANTIZED
    return Verdict(other, kl, agreement, len(ids), limit)


def other_tokens(checkpoint: Path, file: Path) -> list[str]:
    """The awkward texts that llama.cpp tokenizes otherwise than transformers, one sentence each."""
    from gguf_golf.models.tokens import check

    return check.compare(checkpoint, file)


def token_ids(reference: TransformersEngine, n_tokens: int) -> npt.NDArray[np.int32]:
    """`n_tokens` ids of awkward texts, first as one text and then backwards, until there are enough."""
    from gguf_golf.models.tokens import check

    ids = list(reference.tokenize("\n".join(check.AWKWARD)))
    while len(ids) < n_tokens:
        ids += ids[::-1]
    return np.array(ids[:n_tokens], np.int32)


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
