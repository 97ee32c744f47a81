"""`tune` end to end: what is measured of the file is what was trained, nothing gets worse, and a run resumes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="needs the [tune] extra")
pytest.importorskip("transformers", reason="needs the [tune] extra")

import torch
import transformers
from safetensors.torch import load_file, save_file

from gguf_golf.errors import InputError
from gguf_golf.evaluate.file_result import file_result
from gguf_golf.formats import quant_types
from gguf_golf.quantize.cached import as_gguf
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.inspect import inspect
from gguf_golf.quantize.job import Job
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.tune import train
from gguf_golf.tune.settings import METADATA_BYTES, Settings
from gguf_golf.tune.tokens import from_files
from gguf_golf.tune.tune import tune

JOB = Job(threads=1, progress=False)


def first_layers(folder: Path, tiny_dir: Path, n: int) -> Path:
    """A Hugging Face folder with the first `n` layers of golf-tiny."""
    folder = folder / "model"
    folder.mkdir()
    weights = load_file(tiny_dir / "model.safetensors")
    kept = {
        name: w for name, w in weights.items() if not name.startswith("model.layers.") or int(name.split(".")[2]) < n
    }
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tiny_dir / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": n}))
    shutil.copy(tiny_dir / "tokenizer.model", folder)
    return folder


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path) -> Path:
    """A model that trains in seconds: the first layer of golf-tiny, as a Hugging Face folder."""
    return first_layers(tmp_path_factory.mktemp("one-layer"), tiny_dir, 1)


@pytest.fixture(scope="session")
def two_layers(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path) -> Path:
    """The first two layers of golf-tiny."""
    return first_layers(tmp_path_factory.mktemp("two-layers"), tiny_dir, 2)


@pytest.fixture
def short(tmp_path: Path, demo_text: Path) -> Settings:
    """Eight steps on a few hundred tokens each."""
    text = tmp_path / "text.txt"
    text.write_text(demo_text.read_text(encoding="utf-8")[:16000], encoding="utf-8")
    return Settings((text,), tokens=8 * 512, n_ctx=64, batch_tokens=512)


def tensors(path: Path) -> dict[str, bytes]:
    quant_types.register_with_gguf()
    return {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("type_name", ["tcq2", "q2_k"])
def test_a_tuned_file_has_the_size_of_the_untuned_one_and_less_divergence(
    one_layer: Path, short: Settings, tmp_path: Path, type_name: str
) -> None:
    plain, out = tmp_path / "plain.gguf", tmp_path / "tuned.gguf"
    convert(one_layer, plain, type_name=type_name, embedding_type="q6_k", job=JOB)
    done = tune(one_layer, out, type_name=type_name, embedding_type="q6_k", settings=short, job=JOB)
    assert done.kld < done.kld_before
    before, after = tensors(plain), tensors(out)
    assert {name: len(data) for name, data in before.items()} == {name: len(data) for name, data in after.items()}
    assert 0 < out.stat().st_size - plain.stat().st_size < METADATA_BYTES
    assert (inspect(out).needs is None) == (type_name == "q2_k")
    assert before["token_embd.weight"] == after["token_embd.weight"]
    assert before["blk.0.attn_q.weight"] != after["blk.0.attn_q.weight"]
    assert before["blk.0.attn_norm.weight"] != after["blk.0.attn_norm.weight"]


def held_out_logits(path: Path, chunks: NDArray[np.int32]) -> NDArray[np.float64]:
    """What llama.cpp predicts in the second half of each chunk: log-probabilities [n, n_vocab]."""
    every = []
    with LoadedModel(path) as model, model.context(chunks.shape[1], threads=1) as context:
        for chunk in chunks:
            context.clear()
            positions = np.arange(len(chunk), dtype=np.int32)
            every.append(context.decode(chunk, positions, positions >= 0)[len(chunk) // 2 : -1].astype(np.float64))
    logits = np.concatenate(every)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def test_llama_cpp_measures_the_divergence_that_training_reports(
    one_layer: Path, short: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.gguf"
    done = tune(one_layer, out, type_name="tcq2", settings=short, job=JOB)
    base = as_gguf(one_layer)
    chunks = from_files(base, short.texts, short.n_ctx).held_out
    expected, found = held_out_logits(base, chunks), held_out_logits(out, chunks)
    kld = float(np.mean(np.sum(np.exp(expected) * (expected - found), axis=1)))
    assert kld == pytest.approx(done.kld, rel=0.02)


def test_texts_that_decide_nothing_are_measured_and_an_untuned_file_is_a_start(
    one_layer: Path, short: Settings, tmp_path: Path, demo_text: Path
) -> None:
    plain = tmp_path / "plain.gguf"
    convert(one_layer, plain, type_name="q2_k", job=JOB)
    anew, begun = (
        tune(one_layer, tmp_path / name, type_name="q2_k", settings=settings, job=JOB)
        for name, settings in (
            ("anew.gguf", replace(short, measured=(demo_text,))),
            ("begun.gguf", replace(short, measured=(demo_text,), start=plain)),
        )
    )
    assert tensors(tmp_path / "anew.gguf") == tensors(tmp_path / "begun.gguf")
    assert anew.measured == begun.measured
    (measured,) = anew.measured
    assert measured.after.kld < measured.before.kld
    assert 0 < measured.after.error < measured.after.kld


def test_a_start_of_other_types_is_refused(one_layer: Path, short: Settings, tmp_path: Path) -> None:
    plain = tmp_path / "plain.gguf"
    convert(one_layer, plain, type_name="q3_k", job=JOB)
    with pytest.raises(InputError, match=r"plain\.gguf cannot be the start: its blk\.0\.\S+ is not q2_k"):
        tune(one_layer, tmp_path / "out.gguf", type_name="q2_k", settings=replace(short, start=plain), job=JOB)


def test_one_layer_at_a_time_is_measured_as_llama_cpp_measures_it_and_resumes(
    two_layers: Path, short: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    plain, out, again = (tmp_path / f"{name}.gguf" for name in ("plain", "out", "again"))
    convert(two_layers, plain, type_name="q2_k", job=JOB)
    settings = replace(short, window=1, measured=short.texts)
    done = tune(two_layers, out, type_name="q2_k", settings=settings, job=JOB)
    assert done.kld < done.kld_before
    base = as_gguf(two_layers)
    chunks = from_files(base, short.texts, short.n_ctx).held_out
    expected = held_out_logits(base, chunks)
    for path, reported in ((plain, done.kld_before), (out, done.kld)):
        found = held_out_logits(path, chunks)
        assert float(np.mean(np.sum(np.exp(expected) * (expected - found), axis=1))) == pytest.approx(
            reported, rel=0.02
        )

    def interrupt(words: str) -> None:
        if words.startswith("layers 1 to 1: step 8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(two_layers, again, type_name="q2_k", settings=settings, job=JOB, say=interrupt)
    said: list[str] = []
    resumed = tune(two_layers, again, type_name="q2_k", settings=settings, job=JOB, say=said.append)
    assert "layers 1 to 1: resuming at step 6 of 8" in said
    assert not any(words.startswith("layers 0 to 0: step") for words in said)
    assert tensors(again) == tensors(out)
    assert resumed.measured == done.measured
    assert [path.name for path in tmp_path.iterdir() if ".tune" in path.name] == []


def test_only_norms_leaves_the_matrices_as_quantize_makes_them(
    one_layer: Path, short: Settings, tmp_path: Path
) -> None:
    plain, out = tmp_path / "plain.gguf", tmp_path / "tuned.gguf"
    convert(one_layer, plain, type_name="tcq2", job=JOB)
    tune(one_layer, out, type_name="tcq2", settings=replace(short, only_norms=True), job=JOB)
    before, after = tensors(plain), tensors(out)
    assert {name for name in before if before[name] != after[name]} == {
        "blk.0.attn_norm.weight",
        "blk.0.ffn_norm.weight",
        "output_norm.weight",
    }


def test_an_interrupted_run_resumes_with_the_same_file(
    one_layer: Path, short: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    whole, out = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    tune(one_layer, whole, type_name="tcq2", settings=short, job=JOB)
    said: list[str] = []

    def interrupt(words: str) -> None:
        said.append(words)
        if words.startswith("step 8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(one_layer, out, type_name="tcq2", settings=short, job=JOB, say=interrupt)
    assert not out.exists()
    tune(one_layer, out, type_name="tcq2", settings=short, job=JOB, say=said.append)
    assert "resuming at step 6 of 8" in said
    assert tensors(out) == tensors(whole)
    assert not out.with_name("out.gguf.tune").exists()


@pytest.mark.parametrize("rate", [30.0, 1e30])  # the second gives a loss that is not a number
def test_a_file_that_training_made_worse_is_not_handed_over(
    one_layer: Path, short: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    monkeypatch.setattr(train, "NORM_RATE", rate)
    plain, out = tmp_path / "plain.gguf", tmp_path / "tuned.gguf"
    convert(one_layer, plain, type_name="tcq2", job=JOB)
    done = tune(one_layer, out, type_name="tcq2", settings=short, job=JOB)
    assert done.kld == done.kld_before
    assert any("the file is the untuned one" in note for note in done.notes)
    assert tensors(out) == tensors(plain)


def test_experts_are_tuned(tmp_path: Path, tiny_dir: Path, short: Settings) -> None:
    """A random mixture of experts, whose gates and ups transformers keeps in one parameter."""
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=4096,
        max_position_embeddings=64,
        moe_intermediate_size=64,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        initializer_range=0.3,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.model").write_bytes((tiny_dir / "tokenizer.model").read_bytes())
    plain, out = tmp_path / "plain.gguf", tmp_path / "tuned.gguf"
    convert(tmp_path / "model", plain, type_name="tcq2", job=JOB)
    done = tune(tmp_path / "model", out, type_name="tcq2", settings=short, job=JOB)
    assert done.kld < done.kld_before
    before, after = tensors(plain), tensors(out)
    for name in ("gate", "up", "down"):
        assert before[f"blk.0.ffn_{name}_exps.weight"] != after[f"blk.0.ffn_{name}_exps.weight"]


def test_without_a_text_the_model_writes_its_own(one_layer: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.gguf"
    settings = Settings((), tokens=16 * 32, n_ctx=32, batch_tokens=128, only_norms=True, seed=3)
    done = tune(one_layer, out, type_name="tcq2", settings=settings, job=JOB)
    fields = gguf.GGUFReader(out).fields
    assert fields["gguf_golf.tune.text"].contents() == "sampled from the model"
    assert fields["gguf_golf.tune.seed"].contents() == 3
    assert fields["gguf_golf.tune.steps"].contents() <= done.steps
    assert f"norms, {fields['gguf_golf.tune.steps'].contents()} steps, " in str(file_result(out, "quant").tuned)


def test_a_model_writes_text_beside_that_which_is_given(one_layer: Path, short: Settings, tmp_path: Path) -> None:
    out = tmp_path / "tuned.gguf"
    settings = replace(short, tokens=512, own_tokens=16 * 64, only_norms=True)
    said: list[str] = []
    tune(one_layer, out, type_name="q4_0", settings=settings, job=JOB, say=said.append)
    n = len(from_files(as_gguf(one_layer), short.texts, short.n_ctx).train)
    assert said[0] == f"text.txt, sampled from the model: {n + 16} chunks to train on, {n // 7 + 2} held out"
    assert gguf.GGUFReader(out).fields["gguf_golf.tune.text"].contents() == "text.txt, sampled from the model"


def test_protected_rows_are_refused(one_layer: Path, short: Settings, tmp_path: Path) -> None:
    recipe = tmp_path / "rows.toml"
    line = '"token_embd.weight" = { type = "tcq2", rows = 8 }'
    recipe.write_text(f'format = 1\n[tensors]\n{line}\n"*" = "tcq2"\n')
    with pytest.raises(InputError, match="--no-protected-rows"):
        tune(one_layer, tmp_path / "out.gguf", recipe=recipe, settings=short, job=JOB)


def test_no_text_at_all_is_refused(one_layer: Path, short: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no text to train on"):
        tune(one_layer, tmp_path / "o.gguf", type_name="q4_0", settings=replace(short, texts=(), own_tokens=0), job=JOB)
