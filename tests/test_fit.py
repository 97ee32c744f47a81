"""`gguf-golf fit` and `sweep` on the embedded model, killed and started again."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.fit import Settings, describe, dry_run, fit
from gguf_golf.formats import quant_types
from gguf_golf.plan.budget import Memory
from gguf_golf.plan.constraints import Constraints
from gguf_golf.runtime.header import GgufHeader
from gguf_golf.sensitivity import distortion
from gguf_golf.texts import DATA
from gguf_golf.tune.settings import Settings as TuneSettings

SETTINGS = Settings(n_ctx=64, calibration_chunks=2, control_chunks=3, eval_chunks=2, threads=1)
BUDGETS = ["1.9MB", "2.6bpw"]
TYPES = ("tcq2", "tcq3", "tcq4", "q4_k", "q6_k")  # a few: every type is tried in tests/sensitivity

PROGRAM = f"""
import sys
from pathlib import Path
from gguf_golf.formats import quant_types
from gguf_golf.fit import Settings, fit
from gguf_golf.plan.constraints import Constraints
from gguf_golf.sensitivity import distortion
distortion.CANDIDATES = tuple(quant_types.get(name) for name in {TYPES})
outs = [Path(name) for name in sys.argv[2:]]
fit(Path(sys.argv[1]), {BUDGETS}, outs, {SETTINGS}, Constraints(), print)
"""


@pytest.fixture(scope="module", autouse=True)
def few_types():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distortion, "CANDIDATES", tuple(quant_types.get(name) for name in TYPES))
        yield


def outs_in(folder: Path) -> list[Path]:
    return [folder / "bytes.gguf", folder / "bpw.gguf"]


@pytest.fixture(scope="module")
def whole(tiny_dir, tmp_path_factory):
    """(files, outcomes, words) of a run that is left alone."""
    outs, said = outs_in(tmp_path_factory.mktemp("whole")), []
    return outs, fit(tiny_dir, BUDGETS, outs, SETTINGS, Constraints(), said.append, "gguf-golf sweep ..."), said


def results_of(outs):
    return json.loads(outs[0].with_suffix(".json").read_text())


def test_files_results_and_page(whole):
    outs, fits, said = whole
    assert outs[0].stat().st_size == fits[0].plan.file_bytes <= 1_900_000
    assert fits[1].result.bpw <= 2.6
    klds = [each.result.measures.kld_mean for each in fits]
    predicted = [each.plan.recipe.predicted_kld for each in fits]
    assert predicted == [min(trial.kld for trial in each.verdict.trials) for each in fits]
    for each in fits:
        assert each.verdict.trials[0].name == "the plan"
        assert any(trial.name.startswith("uniform") for trial in each.verdict.trials)
    factors = [each.predicted_kld / each.verdict.best.kld for each in fits]
    assert factors == pytest.approx([factors[0]] * len(fits))  # that of the texts, the same for all files
    assert 0.5 < factors[0] < 2
    assert 0 < klds[0] < klds[1]
    assert predicted[0] < predicted[1]
    results = results_of(outs)
    assert {model["role"] for model in results["models"][:-2]} == {"base", "noise-floor"}
    assert [model["role"] for model in results["models"][-2:]] == ["quant", "quant"]
    assert results["command"] == "gguf-golf sweep ..."
    assert outs[0].with_suffix(".html").is_file()
    assert said[0].startswith("[1/6] converting")
    assert all("left in all" in words for words in said[:-1])
    assert not list(outs[0].parent.rglob("encoded")), "tensors that no later file needs are still there"
    text = describe(fits)
    assert f"{fits[0].plan.file_bytes:,} bytes, predicted KLD" in text


def test_again_nothing_is_done_twice(whole, tiny_dir, monkeypatch):
    outs, fits, _ = whole
    for name in ("fit.convert", "fit.collect", "fit.measure", "control.quantize", "control.evaluate"):
        monkeypatch.setattr(f"gguf_golf.{name}", lambda *arguments, **options: pytest.fail("done twice"))
    again = fit(tiny_dir, BUDGETS, outs, SETTINGS, Constraints(), lambda words: None)
    assert [each.plan.text for each in again] == [each.plan.text for each in fits]


def test_killed_and_started_again_it_ends_with_the_same_bytes(whole, tiny_dir, tmp_path):
    outs = outs_in(tmp_path)
    for killed_at in ("*/base.gguf", "*/sensitivity.json.journal", "*/trial-*.gguf.partial", None):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("PosixPath", "Path"), str(tiny_dir), *map(str, outs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if killed_at is not None:
            while process.poll() is None and not any((tmp_path / "gguf-golf-work").glob(killed_at)):
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        log = process.communicate()[0]
    assert process.returncode == 0, log
    for ours, theirs in zip(outs, whole[0], strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert not [path.name for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".journal", ".base"))]


def test_a_tuned_file_keeps_within_the_budget_and_is_not_tuned_again(tiny_dir, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the tune extra")
    text = tmp_path / "text.txt"
    text.write_text((DATA / "demo" / "calibration.txt").read_text(encoding="utf-8")[:12000], encoding="utf-8")
    tuning = TuneSettings((text,), tokens=512, n_ctx=32, batch_tokens=256, only_norms=True)
    out, said = tmp_path / "tuned.gguf", []
    settings = replace(SETTINGS, tune=tuning)
    fits = fit(tiny_dir, ["1.9MB"], [out], settings, Constraints(), said.append)
    assert fits[0].plan.file_bytes < out.stat().st_size <= 1_900_000
    with GgufHeader(out) as header:
        assert header.text("gguf_golf.recipe") == fits[0].plan.text
        assert header.text("gguf_golf.tune.text") == "text.txt"
    assert any(words.startswith("step 2 of 2") for words in said)
    monkeypatch.setattr("gguf_golf.tune.tune.tune", lambda *arguments, **options: pytest.fail("done twice"))
    fit(tiny_dir, ["1.9MB"], [out], settings, Constraints(), lambda words: None)


def test_a_dry_run_plans_from_what_was_measured_or_says_that_it_guesses(whole, tiny_dir, tmp_path):
    outs, fits, _ = whole
    measured = dry_run(tiny_dir, BUDGETS, outs, SETTINGS, Constraints())
    assert not measured.guessed
    assert measured.plans[0].text == fits[0].verdict.trials[0].plan.text
    guessed = dry_run(tiny_dir, BUDGETS[:1], [tmp_path / "out.gguf"], SETTINGS, Constraints())
    assert guessed.guessed and guessed.plans[0].file_bytes <= 1_900_000
    assert "types are a guess" in str(guessed) and "all steps take about" in str(guessed)
    assert not list(tmp_path.iterdir())


def test_settings_of_the_evaluation_alone_do_not_start_calibration_over(whole, tiny_dir, monkeypatch):
    outs, fits, _ = whole
    for name in ("fit.convert", "fit.collect", "fit.measure", "control.quantize"):
        monkeypatch.setattr(f"gguf_golf.{name}", lambda *arguments, **options: pytest.fail("done twice"))
    again, _ = fit(tiny_dir, BUDGETS, outs, replace(SETTINGS, eval_chunks=3), Constraints(), lambda words: None)
    assert again.result.measures.tokens == 3 * fits[0].result.measures.tokens // 2


def test_a_gpu_is_told_what_it_takes(whole, tiny_dir):
    outs, _, _ = whole
    settings = replace(SETTINGS, vram=Memory(18_000_000, 512))
    fits = fit(tiny_dir, BUDGETS, outs, settings, Constraints(), lambda words: None)
    assert 0 < fits[0].offload.gpu_bytes <= 18_000_000
    assert "-c 512 -ngl " in describe(fits)
    with pytest.raises(InputError, match="1 MB of VRAM hold nothing"):
        fit(tiny_dir, BUDGETS, outs, replace(settings, vram=Memory(10**6)), Constraints(), lambda words: None)


def test_tuning_needs_a_checkpoint(tiny, tmp_path):
    pytest.importorskip("torch", reason="needs the tune extra")
    settings = replace(SETTINGS, tune=TuneSettings())
    with pytest.raises(InputError, match="training needs the Hugging Face folder"):
        fit(tiny("f32"), ["1.9MB"], [tmp_path / "out.gguf"], settings, Constraints(), lambda words: None)


def test_an_impossible_budget_names_the_smallest(whole, tiny_dir):
    out = whole[0][0].with_name("small.gguf")
    with pytest.raises(InputError, match="smallest possible file has"):
        fit(tiny_dir, ["100kB"], [out], SETTINGS, Constraints(), lambda words: None)
    with pytest.raises(InputError, match="cannot read the budget"):
        fit(tiny_dir, ["lots"], [out], SETTINGS, Constraints(), lambda words: None)
    assert not out.exists()
