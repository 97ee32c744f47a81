"""A small model without weights, and a sensitivity file for it whose damage follows a simple law."""

import numpy as np
import pytest
from gguf import GGUFValueType

from gguf_golf.models import LazyTensor, MetadataField, Model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.roles import is_quantizable
from gguf_golf.sensitivity.distortion import CANDIDATES
from gguf_golf.sensitivity.result import Sensitivity, SuperWeight, TensorSensitivity

N_EMBD, N_FF, N_KV, N_VOCAB, LAYERS = 256, 512, 64, 1000, 3

SHAPES = {
    "attn_q": (N_EMBD, N_EMBD),
    "attn_k": (N_KV, N_EMBD),
    "attn_v": (N_KV, N_EMBD),
    "attn_output": (N_EMBD, N_EMBD),
    "ffn_gate": (N_FF, N_EMBD),
    "ffn_up": (N_FF, N_EMBD),
    "ffn_down": (N_EMBD, N_FF),
}


def lazy(name, shape):
    def rows(first, last):
        seed = sum(name.encode())
        return np.random.default_rng(seed).normal(size=(last - first, shape[-1])).astype(np.float32)

    return LazyTensor(name, shape, "BF16", rows)


@pytest.fixture(scope="session")
def model():
    """Three layers of a Llama, its head tied to its embedding."""
    tensors = [lazy("token_embd.weight", (N_VOCAB, N_EMBD))]
    for layer in range(LAYERS):
        tensors.append(lazy(f"blk.{layer}.attn_norm.weight", (N_EMBD,)))
        tensors += [lazy(f"blk.{layer}.{kind}.weight", shape) for kind, shape in SHAPES.items()]
    metadata = [MetadataField("general.architecture", "llama", GGUFValueType.STRING)]
    metadata += [
        MetadataField("llama.block_count", LAYERS, GGUFValueType.UINT32),
        MetadataField("llama.embedding_length", N_EMBD, GGUFValueType.UINT32),
        MetadataField("llama.feed_forward_length", N_FF, GGUFValueType.UINT32),
        MetadataField("llama.attention.head_count", 4, GGUFValueType.UINT32),
        MetadataField("llama.attention.head_count_kv", 1, GGUFValueType.UINT32),
    ]
    return Model("llama", metadata, tensors)


@pytest.fixture(scope="session")
def sensitivity(model):
    """Damage falls by a factor of four a bit; v is ten times as sensitive as q; one super weight, lost below 3 bits."""
    rng = np.random.default_rng(3)
    tensors = []
    for tensor in model.tensors:
        if is_quantizable(tensor):
            worth = {"attn_v": 10.0, "attn_q": 1.0}.get(tensor.name.split(".")[-2], 3.0)
            errors = {t.name: float(4.0**-t.bpw * rng.uniform(0.8, 1.2)) for t in CANDIDATES}
            tensors.append(TensorSensitivity(tensor.name, list(tensor.shape), errors, 1.0, worth * rng.uniform(0.5, 2)))
    super_weight = SuperWeight(
        tensor="blk.1.ffn_down.weight",
        row=3,
        channel=7,
        value=1.5,
        height=100.0,
        kld=[0.5, 0.7],
        confirmed=True,
        errors={t.name: 0.5 if t.bpw < 3 else 0.02 for t in CANDIDATES},
        in_slot=["tcq3"],
    )
    return Sensitivity(
        model="small.gguf",
        fingerprint=fingerprint(model),
        imatrix=None,
        imatrix_sha256=None,
        text="text.txt",
        text_sha256="0" * 64,
        n_ctx=512,
        n_chunks=2,
        quick=False,
        tensors=tensors,
        super_weights=[super_weight],
    )


@pytest.fixture(scope="session")
def source(sensitivity):
    return {"model": "small.gguf", "fingerprint": sensitivity.fingerprint}
