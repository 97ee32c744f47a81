"""Damaged GGUFs of TCQ weights through the patched llama.cpp: it refuses them, or computes logits.

All ten types of the family are in the file. llama.cpp ends the process where it meets what it takes for impossible, so
each input belongs into a process that may end: `python -m tests.fuzz.run --target llama.cpp`.
"""

import random
from pathlib import Path

import numpy as np

from gguf_golf.evaluate.divergence import log_sum_exp
from gguf_golf.plan.recipe import Line, Recipe, to_toml
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.job import Job
from gguf_golf.runtime.session import LoadedModel
from tests.fuzz import mutate
from tests.models.checkpoints import BASE, byte_level_tokenizer, write_checkpoint

RATES = 5
TOKENS = np.array([5, 40, 282, 100, 7, 7, 250, 31], np.int32)


def make(folder: Path) -> Path:
    """A model with a layer of each rate; rows of 256 weights take blocks of 256, rows of 64 the small ones."""
    changes = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 64,
        "num_hidden_layers": RATES,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
    }
    checkpoint = write_checkpoint(folder / "model", BASE | changes, byte_level_tokenizer(None), {})
    lines = {f"blk.{rate - 1}.*": Line(f"tcq{rate}") for rate in range(1, RATES + 1)}
    lines |= {"token_embd.weight": Line("tcq4"), "output.weight": Line("tcq5")}
    (folder / "recipe.toml").write_text(to_toml(Recipe(lines)), encoding="utf-8")
    path = folder / "model.gguf"
    quantize(checkpoint, folder / "recipe.toml", path, job=Job(threads=1, progress=False))
    return path


def damage(data: bytes, rng: random.Random) -> bytes:
    """Half of the inputs: a field of the header, a cut, an insertion; the others: noise in the data."""
    if rng.random() < 0.5:
        return mutate.mutate_gguf(data, rng)
    at = rng.randrange(len(data) // 8, len(data))
    noise = rng.randbytes(min(len(data) - at, 1 << rng.randint(0, 14)))
    return data[:at] + noise + data[at + len(noise) :]


def read(path: Path) -> None:
    """Load the file and decode a few tokens; raises GolfError where llama.cpp refuses it, or computes NaN or Inf."""
    n = len(TOKENS)
    with LoadedModel(path) as model, model.context(16, threads=1) as context:
        log_sum_exp(context.decode(TOKENS % model.n_vocab, np.arange(n, dtype=np.int32), np.ones(n, bool)))
