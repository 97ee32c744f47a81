"""What an evaluation found, as plain dataclasses, and the results JSON (schema: docs/evaluation.md)."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf import __version__
from gguf_golf.evaluate import bootstrap
from gguf_golf.evaluate.speed import Speed
from gguf_golf.evaluate.tasks.task import TaskResult
from gguf_golf.files import write_text
from gguf_golf.runtime.header import TensorInfo

SCHEMA = "gguf-golf/results"
SCHEMA_VERSION = 1
MARK = f'"{SCHEMA}"'.encode()
KLD_EDGES = tuple(float(edge) for edge in np.logspace(-7, 2, 55))  # six bins a decade, nats


@dataclass(frozen=True)
class TextMeasures:
    """One model on one text (or on all texts of a suite pooled). `*_se` are standard errors, None if unknown.

    Divergence fields are None for the base itself. Perplexities are per token, KLD in nats, `rms_dp` a probability.
    """

    tokens: int
    text_bytes: int
    ppl: float
    ppl_se: float | None
    bpb: float
    bpb_se: float | None
    kld_mean: float | None = None
    kld_se: float | None = None
    kld_p50: float | None = None
    kld_p50_se: float | None = None
    kld_p90: float | None = None
    kld_p90_se: float | None = None
    kld_p99: float | None = None
    kld_p99_se: float | None = None
    kld_p999: float | None = None
    kld_p999_se: float | None = None
    kld_max: float | None = None
    rms_dp: float | None = None
    rms_dp_se: float | None = None
    top1: float | None = None
    top1_se: float | None = None
    top5: float | None = None
    top5_se: float | None = None
    ln_ppl_ratio: float | None = None
    ln_ppl_ratio_se: float | None = None
    kld_histogram: list[int] | None = None


def base_measures(nll: NDArray[np.float32], text_bytes: int) -> TextMeasures:
    """Measures of the base from -log p f32 [n_chunk, n_scored], in nats."""
    mean = float(nll.mean(dtype=np.float64))
    error = bootstrap.mean_error(nll)
    ppl = math.exp(mean)
    bits = nll.size / text_bytes / math.log(2)
    return TextMeasures(
        tokens=nll.size,
        text_bytes=text_bytes,
        ppl=ppl,
        ppl_se=None if error is None else ppl * error,
        bpb=mean * bits,
        bpb_se=None if error is None else error * bits,
    )


def model_measures(scores: NDArray[np.void], text_bytes: int) -> TextMeasures:
    """Measures of a model from its TOKEN_SCORE [n_chunk, n_scored]."""
    alone = base_measures(scores["nll"], text_bytes)
    kld = scores["kld"].astype(np.float64)
    fractions = (0.5, 0.9, 0.99, 0.999)
    p50, p90, p99, p999 = (float(value) for value in np.quantile(kld, fractions))
    p50_se, p90_se, p99_se, p999_se = bootstrap.quantile_errors(kld, fractions)
    square = scores["p_diff"].astype(np.float64) ** 2
    rms = math.sqrt(square.mean())
    square_se = bootstrap.mean_error(square)
    ratio = scores["nll"].astype(np.float64) - scores["nll_base"]
    inside = kld.clip(KLD_EDGES[0], KLD_EDGES[-1] * (1 - 1e-12))
    return TextMeasures(
        **{name: value for name, value in asdict(alone).items() if name in _ALONE},
        kld_mean=float(kld.mean()),
        kld_se=bootstrap.mean_error(kld),
        kld_p50=p50,
        kld_p50_se=p50_se,
        kld_p90=p90,
        kld_p90_se=p90_se,
        kld_p99=p99,
        kld_p99_se=p99_se,
        kld_p999=p999,
        kld_p999_se=p999_se,
        kld_max=float(kld.max()),
        rms_dp=rms,
        rms_dp_se=None if square_se is None else square_se / (2 * rms) if rms else 0.0,
        top1=float(scores["top1"].mean()),
        top1_se=bootstrap.mean_error(scores["top1"]),
        top5=float(scores["top5"].mean()),
        top5_se=bootstrap.mean_error(scores["top5"]),
        ln_ppl_ratio=float(ratio.mean()),
        ln_ppl_ratio_se=bootstrap.mean_error(ratio),
        kld_histogram=[int(count) for count in np.histogram(inside, KLD_EDGES)[0]],
    )


_ALONE = ("tokens", "text_bytes", "ppl", "ppl_se", "bpb", "bpb_se")


def chunk_means(values: NDArray[Any]) -> dict[str, list[float]]:
    """Means over each chunk, for whoever compares two models on the same chunks: `nll`, `kld` (nats), `top1`.

    From TOKEN_SCORE [n_chunk, n_scored], or from the base's -log p f32 [n_chunk, n_scored] (then `nll` alone). Seven
    digits, as many as the scores have.
    """
    named = {name: values[name] for name in ("nll", "kld", "top1")} if values.dtype.names else {"nll": values}
    means = {name: scores.mean(1, dtype=np.float64) for name, scores in named.items()}
    return {name: [float(f"{mean:.7g}") for mean in each] for name, each in means.items()}


@dataclass
class ModelResult:
    """All that is known of one file. `role` is "base", "quant" or "noise-floor" (one of these, computed otherwise)."""

    file: str
    role: str
    sha256: str
    bytes: int
    bpw: float
    parameters: int
    measures: TextMeasures | None = None
    chunks: dict[str, list[float]] = field(default_factory=dict)
    texts: dict[str, TextMeasures] = field(default_factory=dict)
    tensors: list[TensorInfo] = field(default_factory=list)
    recipe: str | None = None
    tuned: str | None = None
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    speed: Speed | None = None
    bytes_zstd: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of this model: `measures` lie flat beside `file`, `bytes` and `bpw`."""
        known = asdict(self)
        flat = known.pop("measures") or {}
        return {**known, **flat}


def document(results: Sequence[ModelResult], settings: dict[str, Any], command: str | None = None) -> dict[str, Any]:
    """The whole results document; it holds no time stamp, so the same measurement gives the same bytes."""
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "gguf_golf": __version__,
        "command": command,
        "settings": settings,
        "kld_edges": list(KLD_EDGES),
        "models": [result.to_json() for result in results],
    }


def write_json(document: dict[str, Any], path: str | Path) -> None:
    """Write a results document, whole or not at all. Raises InputError if `path` is a file of another kind."""
    write_text(Path(path), json.dumps(document, indent=1, allow_nan=False) + "\n", mark=SCHEMA.encode())
