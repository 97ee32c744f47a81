"""The memory that llama.cpp takes beside a model's file, as llama.cpp itself works it out, for any architecture."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFValueType

from gguf_golf.container.layout import lay_out
from gguf_golf.container.tensors import tensor_infos
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import MetadataField, Model
from gguf_golf.runtime.apart import ask_apart

KV_TYPE = "f16"
"""The type of the KV cache unless told otherwise, as in llama.cpp."""

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""What llama.cpp's --cache-type-k and --cache-type-v take."""


@dataclass(frozen=True)
class ContextMemory:
    """Bytes that a context takes: of the KV cache (or recurrent state) by layer, and of the compute buffer.

    Layers that share the cache of another one have none.
    """

    cache_of: dict[int, int]
    compute: int

    @property
    def cache(self) -> int:
        """Bytes of the whole cache."""
        return sum(self.cache_of.values())

    @property
    def total(self) -> int:
        """Bytes of cache and compute buffer."""
        return self.cache + self.compute


def context_memory(model: Model, n_ctx: int, keys: str = KV_TYPE, values: str = KV_TYPE) -> ContextMemory:
    """What llama.cpp takes for `n_ctx` tokens of one sequence, with the cache's keys and values in these types.

    Layers with a sliding window have a cache of its size, as in llama-cli and llama-server. Raises InputError for a
    type that the cache cannot have, and for a model that llama.cpp cannot load.
    """
    for name in (keys, values):
        if name not in KV_TYPES:
            raise InputError(f"llama.cpp keeps no KV cache in {name}: give one of {', '.join(KV_TYPES)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        _write_header(model, path)
        found = ask_apart(
            "gguf_golf.runtime.context_sizes", path, n_ctx, quant_types.get(keys).id, quant_types.get(values).id
        )
    if "error" in found:
        raise InputError(f"the memory of a context cannot be worked out for this model: {found['error']}")
    return ContextMemory({int(layer): size for layer, size in found["cache_of"].items()}, found["compute"])


def _write_header(model: Model, path: Path) -> None:
    """The model as a file whose weights are a hole, and which has no tokenizer: neither changes a buffer's size."""
    vocabulary = next((tensor.shape[0] for tensor in model.tensors if tensor.name == "token_embd.weight"), 0)
    size_key = f"{model.architecture}.vocab_size"
    metadata = [field for field in model.metadata if not field.key.startswith("tokenizer.") and field.key != size_key]
    metadata += [
        MetadataField("tokenizer.ggml.model", "no_vocab", GGUFValueType.STRING),
        MetadataField(size_key, vocabulary, GGUFValueType.UINT32),
    ]
    chosen = {tensor.name: quant_types.get("f16" if len(tensor.shape) > 1 else "f32") for tensor in model.tensors}
    layout = lay_out(tensor_infos(model, chosen), metadata)
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.file_bytes)
