"""Every architecture that converts without torch: its logits are those of transformers, on tiny random checkpoints."""

import json
import pickle
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy

from gguf_golf.errors import InputError
from gguf_golf.models import open_model
from gguf_golf.runtime.session import LoadedModel
from tests.models.checkpoints import byte_level_tokenizer, write_tokenizer, write_weights
from tests.models.conftest import write_gguf

torch = pytest.importorskip("torch", reason="needs the [hf] extra")
transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")

VOCAB = 320
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, yarn": ("Llama", {"rope_parameters": YARN}),
    "llama, yarn with an attention factor": ("Llama", {"rope_parameters": YARN | {"attention_factor": 1.0}}),
    "llama, yarn with mscale": ("Llama", {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.0}}),
    "llama, yarn not truncated": ("Llama", {"rope_parameters": YARN | {"truncate": False}}),
    "llama, yarn with other betas": ("Llama", {"rope_parameters": YARN | {"beta_fast": 16.0, "beta_slow": 2.0}}),
    "qwen3, yarn with an attention factor": ("Qwen3", {"rope_parameters": YARN | {"attention_factor": 1.3}}),
    "mistral, sliding": ("Mistral", {"sliding_window": 48}),
    "qwen2, sliding in the last layers": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 1, "head_dim": 16},
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "head_dim": 16}),
    "gemma 3": (
        "Gemma3Text",
        {"num_hidden_layers": 7, "sliding_window": 48, "query_pre_attn_scalar": 20, "tie_word_embeddings": True},
    ),
    "gemma 3, another pattern": (
        "Gemma3Text",
        {
            "sliding_window": 48,
            "query_pre_attn_scalar": 32,
            "layer_types": ["full_attention", "sliding_attention"],
            "final_logit_softcapping": 9.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "gpt-oss": (
        "GptOss",
        {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 48, "rope_parameters": YARN},
    ),
    "gpt-oss, yarn not truncated": (
        "GptOss",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": YARN | {"truncate": False}},
    ),
    "qwen3 moe": (
        "Qwen3Moe",
        {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": True},
    ),
}


def save_model(path: Path, class_name: str, settings: dict[str, Any]) -> Any:
    """Save a random model of this class into `path` with a byte-level tokenizer, and return it."""
    torch.manual_seed(3)
    config = getattr(transformers, f"{class_name}Config")(**SIZES | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # sharper than at initialization, and norms that are not all ones
            if parameter.dim() > 1:
                parameter.mul_(5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(path)
    write_tokenizer(path, byte_level_tokenizer(None))
    return model


def logits_of(path: Path, ids: np.ndarray) -> np.ndarray:
    """f32 (n, vocab): what llama.cpp computes at every position."""
    with LoadedModel(path) as model, model.context(len(ids), threads=1) as context:
        everywhere = np.ones(len(ids), bool)
        return context.decode(ids, np.arange(len(ids), dtype=np.int32), everywhere).copy()


@pytest.fixture(params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """A checkpoint of each family, and the model that it was saved from."""
    return tmp_path / "checkpoint", save_model(tmp_path / "checkpoint", *FAMILIES[request.param])


def test_logits_are_those_of_transformers(saved: tuple[Path, Any], tmp_path: Path) -> None:
    path, reference = saved
    ids = np.random.default_rng(5).integers(0, VOCAB, 200).astype(np.int32)
    ours = logits_of(write_gguf(open_model(path), tmp_path / "model.gguf"), ids)
    with torch.no_grad():
        theirs = reference(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()
    error = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs - theirs.mean(1, keepdims=True), axis=1)
    assert np.median(error) < 3e-3  # keys and values are F16; a router may choose otherwise at a tie
    assert np.quantile(error, 0.9) < 2e-2


def test_a_model_pickles_and_reads_rows_alone(saved: tuple[Path, Any]) -> None:
    model = pickle.loads(pickle.dumps(open_model(saved[0])))
    for tensor in model.tensors:
        whole = tensor.load().reshape(tensor.n_rows, -1)
        middle = tensor.n_rows // 2
        np.testing.assert_array_equal(tensor.load_rows(0, middle), whole[:middle])
        np.testing.assert_array_equal(tensor.load_rows(middle, tensor.n_rows), whole[middle:])


def test_fused_experts_are_the_same_model(tmp_path: Path) -> None:
    """transformers 5 holds all experts of a layer in one tensor; either layout is converted."""
    path = tmp_path / "checkpoint"
    save_model(path, *FAMILIES["qwen3 moe"])
    apart = {tensor.name: tensor.load() for tensor in open_model(path).tensors}
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    state = {name: values.numpy() for name, values in model.state_dict().items()}
    assert any(name.endswith("experts.gate_up_proj") for name in state)
    write_weights(path, state, dtype="float32")
    for tensor in open_model(path).tensors:
        np.testing.assert_array_equal(tensor.load(), apart[tensor.name])


def test_mxfp4_experts_are_read_exactly(tmp_path: Path) -> None:
    """Blocks and scales as gpt-oss is published, against gguf-py's own MXFP4, which stores the same codes otherwise."""
    path = tmp_path / "checkpoint"
    state = save_model(path, *FAMILIES["gpt-oss"]).state_dict()
    weights = {name: values.numpy() for name, values in state.items()}
    rng = np.random.default_rng(2)
    expected = {}
    for block in range(SIZES["num_hidden_layers"]):
        for projection in ("gate_up_proj", "down_proj"):
            name = f"model.layers.{block}.mlp.experts.{projection}"
            n, cols, rows = weights.pop(name).shape
            codes = rng.integers(0, 16, (n, rows, cols // 32, 32), np.uint8)
            scales = rng.integers(118, 124, (n, rows, cols // 32), np.uint8)
            weights[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
            weights[f"{name}_scales"] = scales
            stored = np.concatenate([scales[..., None], codes[..., :16] | codes[..., 16:] << 4], axis=-1)
            expected[name] = gguf.dequantize(stored.reshape(n, rows, -1), gguf.GGMLQuantizationType.MXFP4)
    safetensors.numpy.save_file(weights, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    with pytest.raises(InputError, match=r"quantized \(mxfp4\).*--allow-requantize, which takes its values exactly"):
        open_model(path)
    model = open_model(path, allow_requantize=True)
    for block in range(SIZES["num_hidden_layers"]):
        gate_up, down = (
            expected[f"model.layers.{block}.mlp.experts.{projection}"] for projection in ("gate_up_proj", "down_proj")
        )
        for projection, values in (("gate", gate_up[:, ::2]), ("up", gate_up[:, 1::2]), ("down", down)):
            tensor = model.tensor(f"blk.{block}.ffn_{projection}_exps.weight")
            assert tensor.source_type == "BF16"
            assert not np.any(tensor.load().view(np.uint32) & 0xFFFF)  # which holds them
            np.testing.assert_array_equal(tensor.load(), values)
