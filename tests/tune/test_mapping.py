"""Every GGUF tensor is found again in the transformers model, whatever the converter did to it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [tune] extra")
pytest.importorskip("transformers", reason="needs the [tune] extra")

import torch
import transformers

from gguf_golf.errors import InputError
from gguf_golf.models import LazyTensor, open_model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.tune.mapping import link_matrices, link_norms

COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 4096,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 3, "num_experts_per_tok": 2, "norm_topk_prob": True}

CONFIGS = {
    "llama": transformers.LlamaConfig(**COMMON, intermediate_size=48),  # permuted heads
    "qwen3": transformers.Qwen3Config(**COMMON, intermediate_size=48),  # norms of heads
    "qwen3moe": transformers.Qwen3MoeConfig(**COMMON, **EXPERTS, decoder_sparse_step=1),  # fused, stacked experts
    "gemma3": transformers.Gemma3TextConfig(**COMMON, intermediate_size=48, query_pre_attn_scalar=4),  # 1 + norm
}


@pytest.fixture(params=CONFIGS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, tiny_dir: Path) -> tuple[Path, Any]:
    """A random model that transformers saved, and the model as it loads it."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param])
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((tiny_dir / "tokenizer.model").read_bytes())
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    return tmp_path, loaded


def test_rows_go_to_the_model_and_come_back(checkpoint: tuple[Path, Any]) -> None:
    path, transformer = checkpoint
    model = open_model(path)
    parameters = {name: parameter.detach() for name, parameter in transformer.named_parameters()}
    matrices = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    links = link_matrices(matrices, parameters)
    empty = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for tensor in matrices:
        rows = torch.from_numpy(tensor.load_rows(0, tensor.n_rows))
        assert torch.equal(links[tensor.name].gather(parameters, torch.empty_like(rows)), rows)
        links[tensor.name].scatter(rows, empty)
    for name, parameter in parameters.items():
        if parameter.ndim > 1 and "mlp.gate.weight" not in name:  # a router is not quantized
            assert torch.equal(empty[name], parameter), name


def test_norms_are_found_with_what_the_converter_did_to_them(checkpoint: tuple[Path, Any]) -> None:
    path, transformer = checkpoint
    model = open_model(path)
    parameters = {name: parameter.detach() for name, parameter in transformer.named_parameters()}
    links = link_norms(model, parameters)
    norms = [tensor for tensor in model.tensors if tensor.name.endswith("_norm.weight")]
    assert norms and links.keys() == {tensor.name for tensor in norms}
    for tensor in norms:
        link = links[tensor.name]
        found = link.scale * parameters[link.parameter].numpy() + link.offset
        np.testing.assert_allclose(found, tensor.load(), rtol=1e-5, atol=1e-6)


def lazy(name: str, values: np.ndarray) -> LazyTensor:
    return LazyTensor(name, values.shape, "F32", lambda first, last: values[first:last].copy())


def test_a_tensor_that_no_parameter_has_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    other = lazy("blk.0.attn_q.weight", rng.standard_normal((4, 8)).astype(np.float32))
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight cannot be tuned"):
        link_matrices([other], {"q": torch.randn(4, 8)})


def test_equal_rows_are_told_apart_by_the_rows_before_them() -> None:
    values = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    values[3:] = values[2]
    links = link_matrices([lazy("token_embd.weight", values)], {"embedding": torch.from_numpy(values)})
    assert links["token_embd.weight"].pieces[0].source.tolist() == [0, 1, 2, 3, 4, 5]


def test_transposed_experts_are_found() -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float32)
    flat = values.reshape(-1, 8)
    stack = LazyTensor("blk.0.ffn_up_exps.weight", values.shape, "F32", lambda first, last: flat[first:last].copy())
    parameters = {"experts": torch.from_numpy(values.swapaxes(1, 2).copy())}
    link = link_matrices([stack], parameters)[stack.name]
    empty = {"experts": torch.zeros(3, 8, 4)}
    link.scatter(torch.from_numpy(flat), empty)
    assert torch.equal(empty["experts"], parameters["experts"])
    assert torch.equal(link.gather(parameters, torch.empty(12, 8)), torch.from_numpy(flat))
