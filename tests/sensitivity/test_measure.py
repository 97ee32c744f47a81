"""Sensitivity of the embedded model: the probe against files that were really written, resuming, super weights."""

import resource
from dataclasses import replace

import numpy as np
import pytest

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.calibrate.collect import collect
from gguf_golf.encode import Guide
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import open_model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.quantize.stored import stored_tensors
from gguf_golf.quantize.writer import write
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.sensitivity import distortion, measure, measuring, result
from gguf_golf.sensitivity.probe import Probe
from gguf_golf.sensitivity.table import render

N_CTX = 128
NAME = "blk.1.attn_v.weight"


@pytest.fixture(scope="module", autouse=True)
def few_types():
    """Every type is tried in test_distortion.py; here a few will do."""
    few = tuple(quant_types.get(name) for name in ("tcq1", "tcq2", "iq3_xxs", "tcq3", "tcq4", "q4_k", "q8_0", "bf16"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distortion, "CANDIDATES", few)
        yield


@pytest.fixture(scope="module")
def base(tiny):
    return tiny("bf16")


@pytest.fixture(scope="module")
def imatrix(base, demo_text, tmp_path_factory):
    path = tmp_path_factory.mktemp("imatrix") / "imatrix.gguf"
    imatrix_file.write(collect(base, demo_text, n_ctx=N_CTX, n_chunks=4, threads=1), path)
    return path


def log_probabilities(path, text):
    """log p f64 [chunks, positions, vocabulary] of a file, from a quarter of each chunk on."""
    positions = np.arange(N_CTX, dtype=np.int32)
    found = []
    with LoadedModel(path) as model, model.context(N_CTX, threads=1) as context:
        for chunk in text_chunks(model, text, N_CTX, 2):
            context.clear()
            logits = context.decode(with_bos(model, chunk), positions, positions >= N_CTX // 4).astype(np.float64)
            found.append(logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)))
            found[-1] -= logits.max(1, keepdims=True)
    return np.array(found)


def test_disturbing_memory_is_like_writing_a_file(base, demo_text, tmp_path):
    """KLD of a tensor replaced in place equals that of a GGUF which was written with that tensor changed."""
    model = open_model(base)
    tensor = model.tensor(NAME)
    noise = np.random.default_rng(1).normal(scale=0.02, size=tensor.shape).astype(np.float32)
    noisy = tensor.load() + noise
    changed = replace(
        model,
        tensors=[replace(t, read_rows=lambda a, b: noisy[a:b].copy()) if t.name == NAME else t for t in model.tensors],
    )
    chosen = {t.name: quant_types.get("bf16" if is_quantizable(t) else "f32") for t in model.tensors}
    path = tmp_path / "changed.gguf"
    write(stored_tensors(changed, chosen, Guide(), CpuEncoder(1)), path, metadata=changed.metadata, made_from="")
    log_p, log_q = log_probabilities(base, demo_text), log_probabilities(path, demo_text)
    expected = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean(-1)
    with Probe(base, demo_text, n_ctx=N_CTX, n_chunks=2, scratch=tmp_path / "scratch", threads=1) as probe:
        probe.run_base(lambda chunk, node, ask: False)
        assert probe.kld() == pytest.approx(np.zeros((2, Probe.SCORED)), abs=1e-7)
        with probe.disturbed(NAME, noisy):
            found, part = probe.kld(), probe.kld(1, 0.5)
            whole, half = probe.kld_until(lambda segments: False), probe.kld_until(lambda segments: True)
        assert probe.kld() == pytest.approx(np.zeros((2, Probe.SCORED)), abs=1e-7), "the weights were not put back"
    assert found.mean(1) == pytest.approx(expected, rel=2e-3)
    assert part == pytest.approx(found[:1, :4], rel=2e-3), "the first half of a chunk is scored as in the whole"
    assert whole == pytest.approx(found.ravel(), rel=0.02), "smaller batches round otherwise"
    assert half == whole[: Probe.SCORED // 2], "asked after half of a chunk"
    assert expected.min() > 1e-4
    assert not (tmp_path / "scratch").exists()


@pytest.fixture(scope="module")
def measured(base, imatrix, demo_text, tmp_path_factory):
    out = tmp_path_factory.mktemp("sensitivity") / "tiny.json"
    options = {"imatrix_path": imatrix, "text_path": demo_text, "n_ctx": N_CTX, "n_chunks": 2, "threads": 1}
    return measure.measure(base, out, **options), out, options


def test_what_is_written_is_read(measured):
    sensitivity, out, _ = measured
    assert result.read(out) == sensitivity
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_super_weight_is_found_and_confirmed(measured):
    """golf-tiny has one: without it the model falls apart. Spikes elsewhere are harmless, and are said to be."""
    sensitivity, _, _ = measured
    worst = sensitivity.super_weights[0]
    assert (worst.tensor, worst.row, worst.channel) == ("blk.0.ffn_down.weight", 93, 277)
    assert worst.confirmed
    assert np.mean(worst.kld) > 0.3
    assert worst.errors["tcq3"] < 0.05
    assert "tcq3" in worst.in_slot
    assert any(not weight.confirmed for weight in sensitivity.super_weights)


def test_damage_where_it_was_measured_is_what_was_measured(measured):
    sensitivity, _, _ = measured
    for tensor in sensitivity.tensors:
        anchor = tensor.measured[0]
        assert 0 < tensor.rounding["q8_0"] < tensor.rounding["q8_k"] < 0.01
        assert tensor.damage("q4_k") > replace(tensor, rounding={}).damage("q4_k")
        tensor = replace(tensor, rounding={})  # noqa: PLW2901 - nothing rounds activations in a measurement
        assert tensor.damage(anchor.type) == pytest.approx(np.mean(anchor.kld), rel=1e-6)
        assert tensor.damage("tcq3") / tensor.damage("q4_k") == pytest.approx(
            tensor.errors["tcq3"] / tensor.errors["q4_k"]
        )
        assert 0.8 <= tensor.exponent <= 2
        assert tensor.damage("bf16") == 0
        assert 0 < tensor.uncertainty(anchor.type) < tensor.uncertainty("q8_0")


def test_exponents_are_measured_on_a_part_of_the_same_text(measured):
    sensitivity, _, _ = measured
    for kind in ("attn_v", "ffn_down"):
        alike = [tensor for tensor in sensitivity.tensors if kind in tensor.name]
        beyond = [tensor for tensor in alike if len(tensor.measured) == 2]
        assert 0 < len(beyond) <= measuring.PER_KIND
        for tensor in beyond:
            anchor, rough = tensor.measured
            assert rough.error > anchor.error
            assert len(rough.kld) < len(anchor.kld)
            assert np.mean(rough.kld) > np.mean(anchor.kld[: len(rough.kld)])


def test_stability_and_concentration(measured):
    sensitivity, _, _ = measured
    assert set(sensitivity.stability) == {"tensor", "row", "channel", "proxy"}
    assert sensitivity.stability["tensor"] > 0.7
    for tensor in sensitivity.tensors:
        shares = list(tensor.row_share.values())
        assert shares == sorted(shares)
        assert 0.5 <= shares[-1] <= 1
    text = render(sensitivity)
    assert "super weight: blk.0.ffn_down.weight[93, 277]" in text
    assert "rank correlation" in text


def test_an_interrupted_run_resumes(measured, base, tmp_path, monkeypatch):
    sensitivity, out, options = measured
    real, calls = measuring.judged, []

    def failing(tensor, *rest):
        calls.append(tensor.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(tensor, *rest)

    monkeypatch.setattr(measuring, "judged", failing)
    again = tmp_path / out.name
    with pytest.raises(KeyboardInterrupt):
        measure.measure(base, again, **options)
    assert not again.exists()
    journal = again.with_name(again.name + ".journal")
    journal.write_text(journal.read_text() + '{"name": "cut o')
    measure.measure(base, again, **options)
    assert again.read_bytes() == out.read_bytes()
    assert len(calls) == len(sensitivity.tensors) + 1
    assert not journal.exists()


def test_quick_measures_nothing(base, imatrix, tmp_path):
    sensitivity = measure.measure(base, tmp_path / "quick.json", imatrix_path=imatrix, quick=True, threads=1)
    assert sensitivity.quick
    assert not any(tensor.measured for tensor in sensitivity.tensors)
    tensor = open_model(base).tensor(NAME)
    h = imatrix_file.read(imatrix).importance(NAME)
    expected = float((h * tensor.load().astype(np.float64) ** 2).sum())
    assert sensitivity.of(NAME).coefficient == pytest.approx(expected, rel=1e-3)
    rows = distortion.sample(tensor, Guide.open(imatrix, None))
    assert sensitivity.of(NAME).errors == distortion.errors(
        rows, CpuEncoder(2), distortion.Judge(rows), distortion.CANDIDATES
    )
    assert "arbitrary units" in render(sensitivity)


def test_mistakes(base, tiny_dir, demo_text, tmp_path):
    with pytest.raises(InputError, match="--text"):
        measure.measure(base, tmp_path / "x.json")
    with pytest.raises(InputError, match="gguf-golf convert"):
        measure.measure(tiny_dir, tmp_path / "x.json", text_path=demo_text)
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(InputError, match="not a sensitivity file"):
        result.read(tmp_path / "y.json")
    with pytest.raises(InputError, match="gguf-golf sensitivity"):
        result.read(tmp_path / "none.json")


def test_ctrl_c_in_the_callback_stops_the_run(base, demo_text, tmp_path):
    def interrupted(chunk, node, ask):
        raise KeyboardInterrupt

    scratch = tmp_path / "scratch"
    probe = Probe(base, demo_text, n_ctx=N_CTX, n_chunks=2, scratch=scratch, threads=1)
    with probe, pytest.raises(KeyboardInterrupt):
        probe.run_base(interrupted)
    assert not (tmp_path / "scratch").exists()


def test_a_disk_too_full_for_the_base_is_named(base, demo_text, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    scratch = tmp_path / "scratch"
    with Probe(base, demo_text, n_ctx=N_CTX, n_chunks=2, scratch=scratch, threads=1) as probe:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            with pytest.raises(InputError, match=r"scratch: cannot be written \(File too large\)"):
                probe.run_base(lambda chunk, node, ask: False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_exact_rows_of_frequent_tokens_save_what_a_file_with_them_has_less(base, demo_text, imatrix, tmp_path):
    name, tokens = "token_embd.weight", imatrix_file.read(imatrix).frequent_tokens(64)
    tensor = open_model(base).tensor(name)
    question = measuring.Question(base, demo_text, imatrix, None, N_CTX, 1, ("tcq2",))
    with question.measuring(tmp_path / "scratch", 1) as made:
        entry = made.measure_tensor(tensor)
        guide = Guide.open(imatrix, None)
        stored = np.concatenate(
            [s.stored for s in distortion.slabs(tensor, guide, quant_types.get("tcq2"), CpuEncoder(1))]
        )
        stored[tokens] = tensor.load()[tokens]
        with made._probe.disturbed(name, stored):
            left = made._probe.kld()[0, : len(entry.measured[0].kld)]
    assert entry.rows_saved["64"] == pytest.approx(1 - left.sum() / sum(entry.measured[0].kld))
    assert list(entry.rows_saved) == ["64", "128", "256", "512", "1024", "2048"]
    assert list(entry.rows_saved.values()) == sorted(entry.rows_saved.values())
    assert 0.02 < entry.rows_saved["64"] < entry.rows_saved["2048"] < 1


def test_without_token_counts_no_rows_are_measured(base, demo_text, imatrix, tmp_path):
    uncounted = tmp_path / "imatrix.gguf"
    imatrix_file.write(replace(imatrix_file.read(imatrix), token_counts=None), uncounted)
    question = measuring.Question(base, demo_text, uncounted, None, N_CTX, 1, ("tcq2",))
    with question.measuring(tmp_path / "scratch", 1) as made:
        assert made.measure_tensor(open_model(base).tensor("token_embd.weight")).rows_saved == {}
