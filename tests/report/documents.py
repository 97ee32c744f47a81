"""Results documents for tests: made-up numbers in the schema of docs/evaluation.md, small and with known answers."""

import math
from typing import Any

EDGES = [10.0**k for k in range(-6, 2)]


def document(*models: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A whole document of these models, on one text unless told otherwise."""
    text = {"name": "prose", "file": "prose.txt", "sha256": "11" * 32, "bytes": 5000, "n_ctx": 512, "n_chunks": 8}
    return {
        "schema": "gguf-golf/results",
        "version": 1,
        "gguf_golf": "0.1.0",
        "command": "gguf-golf eval base.gguf small.gguf --text prose.txt --json results.json",
        "settings": {"texts": [text], "tasks": [], "speed": None, **settings},
        "kld_edges": list(EDGES),
        "models": list(models),
    }


def base(**more: Any) -> dict[str, Any]:
    return {
        "file": "golf-bf16.gguf",
        "role": "base",
        "sha256": "ba" * 32,
        "bytes": 16_000_000,
        "bpw": 16.0,
        "parameters": 8_000_000,
        "tokens": 2040,
        "text_bytes": 9000,
        "ppl": 20.0,
        "ppl_se": 1.0,
        "bpb": 1.2,
        "bpb_se": 0.02,
        "tensors": tensors("BF16", 2.0),
        **more,
    }


def quant(label: str, size: int, kld: float | None, se: float | None = None, **more: Any) -> dict[str, Any]:
    """A quantized file of `size` bytes; every other measure follows from its KLD."""
    measures: dict[str, Any] = {"tokens": 2040, "text_bytes": 9000}
    if kld is not None:
        measures |= {
            "ppl": 20.0 * math.exp(kld / 2),
            "ppl_se": 1.0,
            "bpb": 1.2 + kld / 10,
            "bpb_se": 0.02,
            "kld_mean": kld,
            "kld_se": 0.03 * kld if se is None else se,
            "kld_p50": kld / 2,
            "kld_p99": 8 * kld,
            "kld_max": 30 * kld,
            "top1": 1 - min(0.9, math.sqrt(kld) / 3),
            "top1_se": 0.004,
            "ln_ppl_ratio": kld / 2,
            "ln_ppl_ratio_se": kld / 50,
            "kld_histogram": [0, 40, 400, 900, 600, 90, 10],
        }
    return {
        "file": f"golf-{label}.gguf",
        "role": "quant",
        "sha256": label.encode().hex().ljust(64, "0")[:64],
        "bytes": size,
        "bpw": size / 1e6,
        "parameters": 8_000_000,
        "tensors": tensors("TCQ3" if label.startswith("tcq") else "Q4_K", 0.5),
        **measures,
        **more,
    }


def tensors(type_name: str, bytes_per_weight: float) -> list[dict[str, Any]]:
    """Two layers of two projections, an embedding of 1000 tokens, a norm."""
    shapes = {f"blk.{layer}.{name}.weight": [256, 512] for layer in (0, 1) for name in ("attn_q", "ffn_down")}
    found = [
        {"name": name, "type": type_name, "shape": shape, "bytes": int(math.prod(shape) * bytes_per_weight)}
        for name, shape in shapes.items()
    ]
    found.append({"name": "token_embd.weight", "type": "Q6_K", "shape": [1000, 256], "bytes": 210_000})
    return [*found, {"name": "output_norm.weight", "type": "F32", "shape": [256], "bytes": 1024}]


def task(score: float, low: float, high: float, chance: float = 0.25, **metric: Any) -> dict[str, Any]:
    known = {"score": score, "low": low, "high": high, "above_chance": low > chance, **metric}
    return {
        "kind": "choice",
        "mode": "loglikelihood",
        "n": 200,
        "chance": chance,
        "primary": "acc",
        "metrics": {"acc": known},
        "answers": {"q1": "A", "q2": "B"},
        "correct": {"q1": True, "q2": False},
    }


def ladder() -> list[dict[str, Any]]:
    """A base and four files: `wasteful` is larger than `tcq3` and worse, the others are each worth their bytes."""
    return [
        base(),
        quant("q8", 8_000_000, 0.001),
        quant("q4", 4_000_000, 0.02),
        quant("tcq3", 3_000_000, 0.04),
        quant("wasteful", 3_500_000, 0.3),
        quant("tiny", 1_000_000, 1.0),
    ]
