"""What a user may spend: bytes of the file, bits per weight, or memory that also has to hold a context."""

import math
import re
from dataclasses import dataclass

from gguf_golf.errors import InputError
from gguf_golf.formats import types
from gguf_golf.models import Model
from gguf_golf.models.model import MetadataField
from gguf_golf.sizes import UNITS

_NUMBER = r"(\d[\d_,]*(?:\.\d+)?)"
_BYTES = re.compile(rf"{_NUMBER}\s*([kmg]?i?b?)", re.IGNORECASE)
_BPW = re.compile(rf"{_NUMBER}\s*bpw", re.IGNORECASE)
_FITS = re.compile(
    rf"(?:fits\s+in\s+)?{_NUMBER}\s*([kmg]i?b?)\s+with\s+(\d[\d_,]*)\s*(?:tokens?)?"
    r"(?:\s+of)?(?:\s+(\w+)(?:/(\w+))?)?(?:\s+context)?",
    re.IGNORECASE,
)

KV_TYPE = "f16"
"""The type of the KV cache unless told otherwise, as in llama.cpp."""

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""What llama.cpp's --cache-type-k and --cache-type-v take."""

UBATCH = 512
"""Tokens that llama.cpp computes at a time; its compute buffer grows with them."""


@dataclass(frozen=True)
class Budget:
    """Exactly one of bytes of the whole file and bits per weight of the tensor data; `text` is how it was asked for."""

    text: str
    file_bytes: int | None = None
    bpw: float | None = None


def parse(text: str, model: Model) -> Budget:
    """Read `1.2GB`, `700 MiB`, `6G`, `38_000_000`, `2.7bpw` or `fits in 8 GB with 8192 tokens of q8_0 context`.

    Without a type of the KV cache it is F16; `q8_0/q4_0` are those of keys and values.
    Raises InputError for anything else, and where the context alone exceeds the memory.
    """
    wanted = text.strip()
    if match := _BPW.fullmatch(wanted):
        return Budget(text, bpw=_number(match[1]))
    if match := _FITS.fullmatch(wanted):
        memory, n_ctx = _size(match[1], match[2]), int(_number(match[3]))
        words = [word.lower() for word in match.group(4, 5) if word and word.lower() != "context"]
        keys, values = (words * 2)[:2] if words else (KV_TYPE, KV_TYPE)
        overhead = context_bytes(model, n_ctx, keys, values)
        if overhead >= memory:
            raise InputError(
                f"{n_ctx} tokens of context take {overhead / 1e9:.2f} GB by themselves, more than the "
                f"{memory / 1e9:.2f} GB there are: use a shorter context"
            )
        return Budget(text, file_bytes=memory - overhead)
    if match := _BYTES.fullmatch(wanted):
        return Budget(text, file_bytes=_size(match[1], match[2]))
    raise InputError(
        f"cannot read the budget {text!r}: give bytes (1.2GB, 700MiB, 38000000), bits per weight (2.7bpw) or "
        "'fits in 8 GB with 8192 tokens of q8_0 context'"
    )


def n_weights(model: Model) -> int:
    """Numbers in all tensors of the model."""
    return sum(math.prod(tensor.shape) for tensor in model.tensors)


def context_bytes(model: Model, n_ctx: int, keys: str = KV_TYPE, values: str = KV_TYPE) -> int:
    """Memory that llama.cpp takes beside the file for `n_ctx` tokens: the KV cache, and a bound on its compute buffer.

    The compute buffer is the largest activations of one batch: the logits, or the MLP's and the attention's.
    """
    n_kv = -(-n_ctx // 256) * 256  # llama.cpp pads the cache
    n_embd = int(_value(model, "embedding_length", 0))
    layers = int(_value(model, "block_count", 0))
    heads = max(_per_layer(model, "attention.head_count", layers, 1), default=1)
    key = int(_value(model, "attention.key_length", n_embd // max(1, heads)))
    n_vocab = max((tensor.shape[0] for tensor in model.tensors if tensor.name == "token_embd.weight"), default=0)
    n_ff = max(_per_layer(model, "feed_forward_length", layers, 0), default=0)
    widest = max(n_vocab + 2 * n_embd, 3 * n_ff + 2 * n_embd, 4 * heads * key + 3 * n_embd)
    mask = 2 * UBATCH * n_kv
    return cache_bytes(model, n_ctx, keys, values) + 4 * UBATCH * widest + mask


def cache_bytes(model: Model, n_ctx: int, keys: str = KV_TYPE, values: str = KV_TYPE) -> int:
    """The size of llama.cpp's KV cache for `n_ctx` tokens, with keys and values in these types.

    Layers that share the cache of another one have none of their own. Every other layer is counted with full attention,
    so that sliding windows come out too large, not too small. Raises InputError for a type that the cache cannot have.
    """
    for name in (keys, values):
        if name not in KV_TYPES:
            raise InputError(f"llama.cpp keeps no KV cache in {name}: give one of {', '.join(KV_TYPES)}")
    layers = int(_value(model, "block_count", 0))
    owners = layers - int(_value(model, "attention.shared_kv_layers", 0))
    kv_heads = _per_layer(model, "attention.head_count_kv", layers, _value(model, "attention.head_count", 1))[:owners]
    n_embd = int(_value(model, "embedding_length", 0))
    heads = max(_per_layer(model, "attention.head_count", layers, 1), default=1)
    key = int(_value(model, "attention.key_length", n_embd // max(1, heads)))
    value = int(_value(model, "attention.value_length", key))
    n_kv = -(-n_ctx // 256) * 256
    return n_kv * sum(
        math.ceil(count * length * types.get(name).bpw / 8)
        for count in kv_heads
        for length, name in ((key, keys), (value, values))
    )


def _field(model: Model, key: str) -> MetadataField | None:
    return next((field for field in model.metadata if field.key == f"{model.architecture}.{key}"), None)


def _value(model: Model, key: str, default: float) -> float:
    field = _field(model, key)
    value = default if field is None else field.value
    return max(value) if isinstance(value, list) else float(value)  # type: ignore[arg-type]


def _per_layer(model: Model, key: str, layers: int, default: float) -> list[int]:
    field = _field(model, key)
    if field is not None and isinstance(field.value, list):
        return [int(value) for value in field.value]
    return [int(_value(model, key, default))] * layers


def _size(number: str, unit: str) -> int:
    return int(_number(number) * UNITS[unit.lower()])


def _number(text: str) -> float:
    return float(text.replace("_", "").replace(",", ""))
