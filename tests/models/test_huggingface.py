"""Llama-shaped checkpoints against what llama.cpp's own converter, transformers and tokenizers made of them.

The expectations in golden/ come from make_golden.py.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from gguf import GGUFValueType, PoolingType, TokenType

from gguf_golf.models import Model, open_model
from gguf_golf.runtime.session import LoadedModel
from tests.models.checkpoints import CASES, TEXTS, VOCAB, random_weights, write_weights
from tests.models.conftest import write_gguf

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Any]:
    return dict(json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8")))


def comparable(model: Model) -> dict[str, list[Any]]:
    """key -> [type, type of elements, value], floats rounded to the f32 that the file holds."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(item) for item in value]
        return float(np.float32(value)) if isinstance(value, float) else value

    return {
        field.key: [field.type.name, field.sub_type.name if field.sub_type is not None else None, rounded(field.value)]
        for field in model.metadata
    }


@pytest.mark.parametrize("name", CASES)
def test_metadata_is_that_of_llama_cpps_converter(name: str, checkpoint: Callable[[str], Path]) -> None:
    ours, theirs = comparable(open_model(checkpoint(name))), golden(name)["metadata"]
    if name == "mistral-json":  # known differences, both improvements: see docs/models.md
        n_known = len(theirs["tokenizer.ggml.tokens"][2])
        for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"):
            assert len(ours[key][2]) == VOCAB
            ours[key][2] = ours[key][2][:n_known]
        del ours["tokenizer.ggml.scores"], theirs["tokenizer.ggml.scores"]
        del ours["tokenizer.ggml.add_eos_token"], theirs["tokenizer.ggml.add_sep_token"]
    assert ours == theirs


@pytest.mark.parametrize("name", CASES)
def test_tensors_are_those_of_llama_cpps_converter(name: str, checkpoint: Callable[[str], Path]) -> None:
    model = open_model(checkpoint(name))
    ours = {
        tensor.name: [list(tensor.shape), hashlib.sha256(tensor.load().astype("<f4").tobytes()).hexdigest()[:16]]
        for tensor in model.tensors
    }
    assert ours == golden(name)["tensors"]


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    expected = golden(name)
    path = write_gguf(open_model(checkpoint(name)), tmp_path / "model.gguf")
    ids = np.array(expected["ids"], np.int32)
    with LoadedModel(path) as model, model.context(len(ids), threads=2) as context:
        last = np.arange(len(ids)) == len(ids) - 1
        logits = context.decode(ids, np.arange(len(ids), dtype=np.int32), last)[0].copy()
    reference = np.array(expected["logits"])
    # llama.cpp keeps keys and values in F16; a wrong permutation, rope factor or bias gives an error near 1
    assert np.linalg.norm(logits - reference) < 3e-3 * np.linalg.norm(reference - reference.mean())


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_tokenizes_like_tokenizers(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    path = write_gguf(open_model(checkpoint(name)), tmp_path / "model.gguf")
    with LoadedModel(path, vocab_only=True) as model:
        ours = [model.tokenize(text, add_special=True, parse_special=True).tolist() for text in TEXTS]
    assert ours == golden(name)["tokens"]


def test_llama_cpp_tokenizes_like_sentencepiece(tiny_dir: Path, demo_text: Path, tmp_path: Path) -> None:
    path = write_gguf(open_model(tiny_dir), tmp_path / "model.gguf")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tiny_dir / "tokenizer.model"))
    texts = [*demo_text.read_text(encoding="utf-8")[:20000].split("\n\n"), *TEXTS]
    with LoadedModel(path, vocab_only=True) as model:
        for text in texts:
            assert model.tokenize(text).tolist() == [1, *processor.EncodeAsIds(text)]


def test_rows_are_read_alone(checkpoint: Callable[[str], Path]) -> None:
    for tensor in open_model(checkpoint("llama-biases")).tensors:
        whole = tensor.load().reshape(tensor.n_rows, -1)
        middle = tensor.n_rows // 2
        np.testing.assert_array_equal(tensor.load_rows(0, middle), whole[:middle])
        np.testing.assert_array_equal(tensor.load_rows(middle, tensor.n_rows), whole[middle:])
        with pytest.raises(IndexError):
            tensor.load_rows(0, tensor.n_rows + 1)


def test_a_tied_output_matrix_is_left_out_unless_it_differs(checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("mistral-json")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    model = open_model(path)
    assert "output.weight" in {tensor.name for tensor in model.tensors}
    assert ["another lm_head.weight" in note for note in model.notes] == [True]
    weights = random_weights(config)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    write_weights(path, weights, dtype="float32")
    model = open_model(path)
    assert "output.weight" not in {tensor.name for tensor in model.tensors}
    assert model.notes == []


def test_a_checkpoint_without_its_head_needs_no_prefix(checkpoint: Callable[[str], Path]) -> None:
    """Embedding models, Qwen3-Embedding for one, are published like this."""
    path = checkpoint("qwen3-sharded")
    whole = {tensor.name: tensor.load() for tensor in open_model(path).tensors}
    for file in path.glob("*.safetensors*"):
        file.unlink()
    weights = random_weights(json.loads((path / "config.json").read_text()))
    base = {name.removeprefix("model."): w for name, w in weights.items() if name != "lm_head.weight"}
    write_weights(path, base, dtype="float16")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    (path / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.models.{kind}", "path": where} for kind, where in (
            ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))])
    )  # fmt: skip
    model = open_model(path)
    assert whole.keys() - {tensor.name for tensor in model.tensors} == {"output.weight"}
    for tensor in model.tensors:
        np.testing.assert_array_equal(tensor.load(), whole[tensor.name])
    assert {field.key: field.value for field in model.metadata}["qwen3.pooling_type"] == PoolingType.LAST


def test_the_weights_are_those_that_transformers_loads(checkpoint: Callable[[str], Path]) -> None:
    """model.safetensors goes before an index and its shards; what is left alone is named."""
    path = checkpoint("qwen3-sharded")
    weights = random_weights(json.loads((path / "config.json").read_text()))
    merged = {name: values + 1 for name, values in weights.items()}
    write_weights(path, merged, dtype="float32")
    model = open_model(path)
    np.testing.assert_array_equal(model.tensor("token_embd.weight").load(), merged["model.embed_tokens.weight"])
    assert any("not used: model-00001-of-00003.safetensors" in note for note in model.notes)
    for file in path.glob("model-0000*"):  # an index that was left behind
        file.unlink()
    assert open_model(path).notes == []


def test_f64_weights_are_rounded_to_f32(checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("mistral-json")
    weights = random_weights(json.loads((path / "config.json").read_text()))
    write_weights(path, {name: w.astype(np.float64) for name, w in weights.items()}, dtype="float64")
    tensor = open_model(path).tensor("token_embd.weight")
    assert tensor.source_type == "F32"
    np.testing.assert_array_equal(tensor.load(), weights["model.embed_tokens.weight"])


def test_ids_beyond_the_tokenizer_are_padding(checkpoint: Callable[[str], Path]) -> None:
    model = open_model(checkpoint("mistral-json"))
    fields = {field.key: field for field in model.metadata}
    assert fields["tokenizer.ggml.tokens"].value[-1] == f"[PAD{VOCAB - 1}]"  # type: ignore[index]
    assert fields["tokenizer.ggml.token_type"].value[-1] == TokenType.UNUSED  # type: ignore[index]
    assert fields["tokenizer.ggml.token_type"].sub_type == GGUFValueType.INT32


@pytest.mark.parametrize(("scheme", "expected"), [("first", None), ("never", False)])
def test_metaspace_says_whether_a_space_comes_first(
    scheme: str, expected: bool | None, checkpoint: Callable[[str], Path]
) -> None:
    path = checkpoint("mistral-json")
    tokenizer = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] = None
    tokenizer["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    fields = {field.key: field.value for field in open_model(path).metadata}
    assert fields.get("tokenizer.ggml.add_space_prefix") is expected


def test_keys_of_the_config_that_nothing_uses_are_named(checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("llama-biases")
    assert open_model(path).notes == []
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"logit_softness": 2, "absent": None, "use_cache": True}))
    assert open_model(path).notes == ["nothing uses these keys of config.json: logit_softness"]
