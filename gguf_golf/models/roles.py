"""What part a tensor plays in a model, by its GGUF name: a linear layer or not, vocabulary, attention, MLP."""

from gguf_golf.models.model import LazyTensor

EMBEDDINGS = ("token_embd.weight", "output.weight")
"""The vocabulary's two tables; many models tie them, and have only the first."""

# Matrices that every llama.cpp quantizer leaves alone: small, or used as something other than a linear layer.
_KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "position_embd.weight",
    "token_types.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_",
    "attn_rel_b.weight",
)


def is_quantizable(tensor: LazyTensor) -> bool:
    """Whether a tensor is a linear layer or an embedding table; everything else stays F32."""
    return len(tensor.shape) > 1 and tensor.name.endswith("weight") and not any(part in tensor.name for part in _KEPT)


def kind(name: str) -> str:
    """The name without layer and suffix: blk.3.attn_q.weight is attn_q."""
    return name.removesuffix(".weight").split(".")[-1]


def group(name: str) -> str:
    """Where a tensor's bytes are counted: vocabulary, attention, MLP or other."""
    if name in EMBEDDINGS:
        return "vocabulary"
    if kind(name).startswith("attn"):
        return "attention"
    if kind(name).startswith("ffn"):
        return "MLP"
    return "other"
