"""Files made from recipes: exact, the same for any number of threads, resumable, and carrying their recipe."""

from dataclasses import replace

import numpy as np
import pytest

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import open_model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan.budget import Budget
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.inputs import default_sensitivity, load
from gguf_golf.plan.make import make_recipe
from gguf_golf.plan.planner import Planner
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.inspect import as_text, inspect
from gguf_golf.quantize.job import Job
from gguf_golf.sensitivity import distortion
from gguf_golf.sensitivity.measure import measure

THREADS = 2


@pytest.fixture(scope="module")
def planned(tiny, tmp_path_factory):
    """golf-tiny, an imatrix of random numbers, and a recipe for it from the cheap proxy."""
    folder = tmp_path_factory.mktemp("recipe")
    base = tiny("bf16")
    rng = np.random.default_rng(0)
    entries = {
        tensor.name: ImatrixEntry(rng.uniform(0.5, 2, (1, tensor.shape[-1])), np.array([1]))
        for tensor in open_model(base).tensors
        if is_quantizable(tensor) and tensor.name.startswith("blk.")
    }
    imatrix = folder / "imatrix.gguf"
    imatrix_file.write(Imatrix(entries, ["random"], 1), imatrix)
    recipe = folder / "recipe.toml"
    with pytest.MonkeyPatch.context() as patch:
        few = tuple(quant_types.get(name) for name in ("tcq2", "tcq3", "q3_k", "q4_k", "q6_k"))
        patch.setattr(distortion, "CANDIDATES", few)
        measure(base, folder / "tiny.json", imatrix_path=imatrix, quick=True, threads=THREADS)
    _, plan = make_recipe(base, "1.8MB", recipe, sensitivity_path=folder / "tiny.json")
    return base, recipe, plan


def test_the_same_bytes_for_any_threads_and_source(planned, tiny_dir, tmp_path):
    """Predicted to the byte; the Hugging Face directory of the same weights gives the same tensors."""
    base, recipe, plan = planned
    assert len({line.type for line in plan.recipe.tensors.values()}) > 1, "this recipe tests little"
    one = quantize(base, recipe, tmp_path / "one.gguf", job=Job(threads=1, progress=False))
    two = quantize(base, recipe, tmp_path / "two.gguf", job=Job(threads=2, progress=False))
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    assert one.written.file_bytes == plan.file_bytes == (tmp_path / "two.gguf").stat().st_size
    assert one.notes == two.notes == []
    quantize(tiny_dir, recipe, tmp_path / "hf.gguf", job=Job(threads=2, progress=False))
    assert (tmp_path / "hf.gguf").read_bytes()[-100_000:] == (tmp_path / "one.gguf").read_bytes()[-100_000:]


def test_an_interrupted_run_ends_with_the_same_bytes(planned, tmp_path, monkeypatch):
    base, recipe, _ = planned
    whole = tmp_path / "whole.gguf"
    quantize(base, recipe, whole, job=Job(threads=2, progress=False))
    real, calls = CpuEncoder.encode, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(CpuEncoder, "encode", failing)
    out = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        quantize(base, recipe, out, job=Job(threads=2, progress=False))
    assert not out.exists()
    quantize(base, recipe, out, job=Job(threads=2, progress=False))
    assert out.read_bytes() == whole.read_bytes()
    n_tensors = len(open_model(base).tensors)
    assert len(calls) == n_tensors + 1, "finished tensors were done again"


def test_what_another_file_has_encoded_is_not_encoded_again(planned, tmp_path, monkeypatch):
    base, recipe, plan = planned
    edited = recipe.with_name("other.toml")
    name = "blk.0.attn_v.weight"
    line = next(line for line in plan.text.splitlines() if name in line and "type" in line)
    edited.write_text(plan.text.replace(line, f'"{name}" = "q5_1"'))
    job = Job(threads=2, progress=False)
    quantize(base, edited, tmp_path / "alone.gguf", job=job)
    reusing = replace(job, encoded=tmp_path / "encoded")
    real, calls = CpuEncoder.encode, []

    def counted(encoder, rows, quant_type, *guidance):
        if quant_type.is_quantized:
            calls.append(quant_type.name)
        return real(encoder, rows, quant_type, *guidance)

    monkeypatch.setattr(CpuEncoder, "encode", counted)
    quantize(base, recipe, tmp_path / "first.gguf", job=reusing)
    assert len(calls) == len(plan.recipe.tensors)
    calls.clear()
    quantize(base, edited, tmp_path / "second.gguf", job=reusing)
    assert calls == ["q5_1"]
    assert (tmp_path / "second.gguf").read_bytes() == (tmp_path / "alone.gguf").read_bytes()


def test_tensors_made_with_another_imatrix_are_not_reused(planned, tmp_path):
    base, recipe, plan = planned
    reusing = Job(threads=2, encoded=tmp_path / "encoded", progress=False)
    quantize(base, recipe, tmp_path / "first.gguf", job=reusing)
    read = imatrix_file.read(recipe.with_name("imatrix.gguf"))
    flat = {name: replace(entry, in_sum2=np.ones_like(entry.in_sum2)) for name, entry in read.entries.items()}
    other = tmp_path / "flat.gguf"
    imatrix_file.write(replace(read, entries=flat), other)
    free = tmp_path / "free.toml"
    free.write_text("\n".join(line for line in plan.text.splitlines() if not line.startswith("imatrix")))
    for name, encoded in (("second", tmp_path / "encoded"), ("alone", None)):
        quantize(base, free, tmp_path / f"{name}.gguf", job=replace(reusing, imatrix=other, encoded=encoded))
    assert (tmp_path / "second.gguf").read_bytes() == (tmp_path / "alone.gguf").read_bytes()


def test_the_file_tells_its_recipe(planned, tmp_path):
    base, recipe, _ = planned
    quantize(base, recipe, tmp_path / "x.gguf", job=Job(threads=2, progress=False))
    found = inspect(tmp_path / "x.gguf")
    assert found.recipe == recipe.read_text()
    assert found.fingerprint == fingerprint(open_model(base))
    assert found.imatrix_sha256
    assert recipe.read_text().rstrip() in as_text(found)
    assert "no recipe" in as_text(inspect(base))


def test_an_edited_recipe_works_and_is_noticed(planned, tmp_path):
    base, recipe, plan = planned
    edited = recipe.with_name("edited.toml")
    name = "blk.0.attn_v.weight"
    line = next(line for line in plan.text.splitlines() if name in line and "type" in line)
    edited.write_text(plan.text.replace(line, f'"{name}" = "q8_0"'))
    done = quantize(base, edited, tmp_path / "edited.gguf", job=Job(threads=2, progress=False))
    assert done.types[name].name == "q8_0"
    assert any("was edited" in note for note in done.notes)
    assert done.written.file_bytes == (tmp_path / "edited.gguf").stat().st_size


def test_what_does_not_belong_together_is_refused(planned, tmp_path):
    base, _, plan = planned
    moved = tmp_path / "moved.toml"
    moved.write_text(plan.text)
    with pytest.raises(InputError, match="--imatrix"):
        quantize(base, moved, tmp_path / "x.gguf", job=Job(progress=False))
    with pytest.raises(InputError, match="SHA-256"):
        quantize(base, moved, tmp_path / "x.gguf", job=Job(imatrix=base, progress=False))
    fingerprint = plan.recipe.source["fingerprint"]
    moved.write_text(plan.text.replace(fingerprint, "0" * 64))
    with pytest.raises(InputError, match="planned for"):
        quantize(base, moved, tmp_path / "x.gguf", job=Job(progress=False))
    assert list(tmp_path.iterdir()) == [moved]


def test_default_places(planned):
    base, recipe, _ = planned
    assert default_sensitivity(base) == base.with_suffix(".sensitivity.json")
    with pytest.raises(InputError, match="gguf-golf sensitivity"):
        load(base, None, None, base.parent)
    inputs = load(base, recipe.with_name("tiny.json"), None, recipe.parent)
    again = Planner(inputs.model, inputs.sensitivity, Constraints(), inputs.imatrix, inputs.source)
    assert again.plan(Budget("1.8MB", file_bytes=1_800_000)).text == recipe.read_text(), "planning is deterministic"
