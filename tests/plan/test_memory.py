"""What a context takes: as much as llama.cpp reports when it allocates it, for caches of every shape."""

import re

import numpy as np
import pytest
from gguf import GGUFValueType

from gguf_golf.errors import InputError
from gguf_golf.models import LazyTensor, MetadataField, Model, open_model
from gguf_golf.plan.memory import KV_TYPES, _write_header, context_memory
from gguf_golf.runtime.session import LoadedModel, bindings, captured_log

N_LAYERS, N_EMBD, N_FF, N_VOCAB, FULL_HEAD, WINDOW_HEAD, WINDOW = 6, 128, 256, 1000, 64, 32, 1024


@pytest.fixture(scope="module")
def windowed() -> Model:
    """Gemma 4's shape in small: every other layer a sliding window of narrower heads, two layers without a cache."""
    numbers = {
        "block_count": N_LAYERS,
        "context_length": 8192,
        "embedding_length": N_EMBD,
        "embedding_length_per_layer_input": 0,
        "feed_forward_length": N_FF,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": FULL_HEAD,
        "attention.key_length_swa": WINDOW_HEAD,
        "attention.value_length": FULL_HEAD,
        "attention.value_length_swa": WINDOW_HEAD,
        "attention.shared_kv_layers": 2,
        "attention.sliding_window": WINDOW,
        "rope.dimension_count": FULL_HEAD,
        "rope.dimension_count_swa": WINDOW_HEAD,
    }
    pattern = [True, False] * (N_LAYERS // 2)
    metadata = [
        MetadataField("general.architecture", "gemma4", GGUFValueType.STRING),
        *(MetadataField(f"gemma4.{key}", value, GGUFValueType.UINT32) for key, value in numbers.items()),
        MetadataField("gemma4.attention.sliding_window_pattern", pattern, GGUFValueType.ARRAY, GGUFValueType.BOOL),
        MetadataField("gemma4.attention.layer_norm_rms_epsilon", 1e-6, GGUFValueType.FLOAT32),
    ]
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (N_VOCAB, N_EMBD), "output_norm": (N_EMBD,)}
    for layer in range(N_LAYERS):
        head = FULL_HEAD if layer % 2 else WINDOW_HEAD
        of_layer = {
            **{"attn_q": (4 * head, N_EMBD), "attn_k": (2 * head, N_EMBD), "attn_v": (2 * head, N_EMBD)},
            **{"attn_output": (N_EMBD, 4 * head), "attn_q_norm": (head,), "attn_k_norm": (head,)},
            **{"ffn_gate": (N_FF, N_EMBD), "ffn_up": (N_FF, N_EMBD), "ffn_down": (N_EMBD, N_FF)},
            **dict.fromkeys(("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), (N_EMBD,)),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    shapes["rope_freqs"] = (FULL_HEAD // 2,)
    tensors = [
        LazyTensor(f"{name}.weight", shape, "F32", lambda first, last: np.zeros((last - first, 1), np.float32))
        for name, shape in shapes.items()
    ]
    return Model("gemma4", metadata, tensors)


def reported(path, n_ctx, keys, values):
    """Bytes of cache and compute buffers that llama.cpp says it has allocated."""
    llama = bindings()
    numbers = {"f16": 1, "q8_0": 8, "q4_0": 2}
    with LoadedModel(path) as loaded, captured_log() as log:
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.swa_full = n_ctx, 1, False
        params.type_k, params.type_v = numbers[keys], numbers[values]
        context = llama.llama_init_from_model(loaded._model, params)
        assert context
        llama.llama_free(context)
    text = "".join(log)
    kinds = (r"KV buffer size = +([\d.]+) MiB", r"compute buffer size = +([\d.]+) MiB")
    return [sum(float(size) for size in re.findall(kind, text)) * 2**20 for kind in kinds]


@pytest.mark.parametrize("types", [("f16", "f16"), ("q8_0", "q4_0")])
def test_cache_and_compute_buffer_are_as_large_as_llama_cpp_reports(tiny, types):
    path = tiny("bf16")
    memory = context_memory(open_model(path), 4096, *types)
    cache, compute = reported(path, 4096, *types)
    assert memory.cache == pytest.approx(cache, rel=0.01)
    assert memory.compute == pytest.approx(compute, rel=0.01)
    assert memory.total == memory.cache + memory.compute


def test_sliding_windows_and_shared_layers_are_counted_as_llama_cpp_counts_them(windowed, tmp_path):
    path = tmp_path / "windowed.gguf"
    _write_header(windowed, path)
    memory = context_memory(windowed, 8192)
    cache, compute = reported(path, 8192, "f16", "f16")
    assert memory.cache == pytest.approx(cache, rel=0.01)
    assert memory.compute == pytest.approx(compute, rel=0.01)
    full, window = 8192 * 2 * 2 * 2 * FULL_HEAD, (WINDOW + 512) * 2 * 2 * 2 * WINDOW_HEAD  # a window and one batch
    assert memory.cache_of == pytest.approx({0: window, 1: full, 2: window, 3: full}, rel=0.01)


def test_twice_the_tokens_take_twice_the_cache(tiny_dir):
    model = open_model(tiny_dir)
    assert context_memory(model, 8192).cache == 2 * context_memory(model, 4096).cache


def test_what_llama_cpp_cannot_have_is_refused(tiny_dir, windowed):
    with pytest.raises(InputError, match=f"no KV cache in tcq3: give one of {KV_TYPES[0]}"):
        context_memory(open_model(tiny_dir), 1024, "tcq3")
    incomplete = Model(windowed.architecture, windowed.metadata, windowed.tensors[:5])
    with pytest.raises(InputError, match=r"cannot be worked out for this model: .*llama\.cpp cannot load"):
        context_memory(incomplete, 1024)
