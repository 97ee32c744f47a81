"""The control: a plan made from a wrong sensitivity loses to a simple file, which is then handed over."""

from dataclasses import replace

import pytest

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.collect import collect
from gguf_golf.cli import cli
from gguf_golf.container.metadata import KEY_RECIPE
from gguf_golf.control import Control, verified_recipe
from gguf_golf.errors import InputError
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.speed import Speed
from gguf_golf.formats import quant_types
from gguf_golf.journal import open_journal
from gguf_golf.models import open_model
from gguf_golf.plan import recipe as recipe_file
from gguf_golf.plan.budget import parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.constraints import Speed as SpeedFloor
from gguf_golf.plan.inputs import load
from gguf_golf.plan.planner import Planner
from gguf_golf.quantize.job import Job
from gguf_golf.runtime.header import GgufHeader
from gguf_golf.sensitivity import distortion, result
from gguf_golf.sensitivity.measure import measure

N_CTX, BUDGET = 64, "1.95MB"
NO_CONSTRAINTS = Constraints()
TYPES = ("tcq1", "tcq2", "tcq3", "tcq4", "q4_k", "q6_k")


@pytest.fixture(scope="module")
def ranked(tiny, demo_text, tmp_path_factory):
    """(base, imatrix, sensitivity file, text): golf-tiny, measured on few types and little text."""
    folder, base = tmp_path_factory.mktemp("control"), tiny("bf16")
    imatrix, sensitivity = folder / "imatrix.gguf", folder / "sensitivity.json"
    imatrix_file.write(collect(base, demo_text, n_ctx=N_CTX, n_chunks=4, threads=1, process_output=True), imatrix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distortion, "CANDIDATES", tuple(quant_types.get(name) for name in TYPES))
        measure(base, sensitivity, imatrix_path=imatrix, text_path=demo_text, n_ctx=N_CTX, threads=1)
    text = folder / "held-out.txt"
    text.write_text(demo_text.read_text()[40_000:60_000])
    return base, imatrix, sensitivity, TextSettings(text, N_CTX, 3)


def control_of(ranked, sensitivity, folder, journal, constraints=NO_CONSTRAINTS):
    base, imatrix, _, text = ranked
    inputs = load(base, sensitivity, imatrix, folder)
    planner = Planner(inputs.model, inputs.sensitivity, constraints, inputs.imatrix, inputs.source)
    return Control(base, planner, text, folder, journal, Job(imatrix=imatrix, threads=1, progress=False))


def test_a_plan_from_a_wrong_sensitivity_loses_and_the_better_file_is_handed_over(ranked, tmp_path):
    """Here the sensitivity file says the opposite of what was measured: what costs most is said to cost least."""
    base, _, sensitivity, _ = ranked
    known = result.read(sensitivity)
    wrong = [replace(t, coefficient=1 / t.coefficient, coefficient_sd=0.0) for t in known.tensors]
    lying = sensitivity.with_name("lying.json")
    result.write(replace(known, tensors=wrong, super_weights=[]), lying)
    out = tmp_path / "best.gguf"
    with open_journal(tmp_path / "measured", "job") as journal:
        verdict = control_of(ranked, lying, tmp_path, journal).best(parse(BUDGET, open_model(base)), out)
    by_name = {trial.name: trial.kld for trial in verdict.trials}
    assert verdict.best.name != "the plan"
    assert verdict.best.kld == min(by_name.values()) < 0.9 * by_name["the plan"]
    assert verdict.best.plan.recipe.predicted_kld == verdict.best.kld
    assert out.stat().st_size == verdict.best.plan.file_bytes <= 1_950_000
    with GgufHeader(out) as header:
        assert header.text(KEY_RECIPE) == verdict.best.plan.text
    written = {t.name: t.source_type.lower() for t in open_model(out, allow_requantize=True).tensors}
    assert all(written[name] == line.type for name, line in verdict.best.plan.recipe.tensors.items())
    assert not list(tmp_path.glob("trial-*"))


def test_what_one_budget_measured_corrects_the_next_and_nothing_is_measured_twice(ranked, tmp_path, monkeypatch):
    base, _, sensitivity, _ = ranked
    model = open_model(base)
    with open_journal(tmp_path / "measured", "job") as journal:
        control = control_of(ranked, sensitivity, tmp_path, journal)
        before = control.planner.correction
        first = control.best(parse(BUDGET, model), None)
        assert control.planner.correction != before
        monkeypatch.setattr("gguf_golf.control.evaluate", lambda *arguments, **options: pytest.fail("measured twice"))
        again = control_of(ranked, sensitivity, tmp_path, journal).best(parse(BUDGET, model), None)
    assert [(trial.name, trial.kld) for trial in again.trials] == [(trial.name, trial.kld) for trial in first.trials]
    corrected = control.planner.plan(parse(BUDGET, model))
    assert corrected.recipe.predicted_kld == pytest.approx(first.trials[0].kld, rel=0.15)


NS_PER_WEIGHT = {name: quant_types.get(name).bpw for name in TYPES}


def on_a_machine(monkeypatch, slowness):
    """Files whose speed is that of the types in them, times what this machine is slower than predicted."""

    def measure_speed(paths, settings, journal_path):
        journal_path.touch()
        tensors = [t for t in open_model(paths[0], allow_requantize=True).tensors if t.source_type.lower() in TYPES]
        ns = sum(NS_PER_WEIGHT[t.source_type.lower()] * t.n_rows * t.shape[-1] for t in tensors)
        tokens = 1e9 / (slowness * ns)
        return [Speed(tokens, tokens, [tokens], [tokens], 0, 0.0)]

    monkeypatch.setattr("gguf_golf.control.measure_speed", measure_speed)


def floor_of(base, bpw):
    """Tokens per second of a file of `bpw` bits per weight on a machine that is as fast as predicted."""
    return 1e9 / (bpw * sum(t.n_rows * t.shape[-1] for t in open_model(base).tensors if len(t.shape) > 1))


def test_a_floor_on_speed_is_measured_and_a_slower_machine_gets_another_plan(ranked, tmp_path, monkeypatch):
    base, _, sensitivity, _ = ranked
    floor, budget = floor_of(base, 4.0), parse(BUDGET, open_model(base))
    constraints = Constraints(speed=SpeedFloor(floor, NS_PER_WEIGHT))
    said, bits = [], []
    for slowness in (1.0, 1.2):
        on_a_machine(monkeypatch, slowness)
        folder = tmp_path / str(slowness)
        folder.mkdir()
        with open_journal(folder / "measured", "job") as journal:
            verdict = control_of(ranked, sensitivity, folder, journal, constraints).best(budget, None, said.append)
        assert verdict.tokens_per_second >= floor
        assert f"{verdict.tokens_per_second:.1f} tokens/s" in verdict.summary()
        bits.append(verdict.trials[0].plan.file_bytes)
    assert bits[1] < bits[0]
    assert [words for words in said if "planning again" in words]


def test_a_floor_that_no_file_reaches_is_refused(ranked, tmp_path, monkeypatch):
    base, _, sensitivity, _ = ranked
    on_a_machine(monkeypatch, 100.0)
    constraints = Constraints(speed=SpeedFloor(floor_of(base, 4.0), NS_PER_WEIGHT))
    with open_journal(tmp_path / "measured", "job") as journal:
        control = control_of(ranked, sensitivity, tmp_path, journal, constraints)
        with pytest.raises(InputError, match="floor on speed"):
            control.best(parse(BUDGET, open_model(base)), None)


def test_plan_verify_writes_the_recipe_of_the_best(ranked, tmp_path):
    base, _, sensitivity, text = ranked
    out = tmp_path / "recipe.toml"
    verdict = verified_recipe(base, BUDGET, out, text, sensitivity_path=sensitivity, threads=1)
    recipe, _ = recipe_file.read(out)
    assert recipe.predicted_kld == pytest.approx(verdict.best.kld, rel=0.01)
    assert {name: line.type for name, line in recipe.tensors.items()} == {
        name: line.type for name, line in verdict.best.plan.recipe.tensors.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    assert "the best is" in verdict.summary()


def test_verify_is_an_option_of_plan():
    options = {name for parameter in cli.commands["plan"].params for name in parameter.opts}
    assert {"--verify", "--chunks", "--threads"} <= options
