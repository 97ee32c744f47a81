"""`gguf-golf convert` from the command line on the embedded model."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.collect import collect
from gguf_golf.calibrate.hessian import Hessians
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.cli import cli
from gguf_golf.encode import Guide
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import open_model
from gguf_golf.quantize.inspect import inspect
from gguf_golf.quantize.job import made_from
from gguf_golf.runtime.header import GgufHeader
from gguf_golf.runtime.session import LoadedModel


def run(*args: object) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(cli, [str(a) for a in args])
    return result.exit_code, result.output, result.exception


def test_a_directory_becomes_a_gguf_of_one_type(tmp_path: Path, tiny_dir: Path) -> None:
    out = tmp_path / "tiny.gguf"
    code, output, _ = run("convert", tiny_dir, "-o", out, "--type", "tcq3", "--embedding-type", "q8_0")
    assert code == 0
    assert f"{out.stat().st_size / 1e6:.1f} MB" in output
    quant_types.register_with_gguf()
    reader = gguf.GGUFReader(out)
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_down.weight"] == "TCQ3"
    assert kinds["output_norm.weight"] == "F32"
    source = open_model(tiny_dir)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type).astype(np.float64)
        wanted = source.tensor(tensor.name).load().reshape(values.shape)
        relative = ((values - wanted) ** 2).sum() / (wanted**2).sum()
        assert relative < {"F32": 1e-12, "Q8_0": 1e-4, "TCQ3": 0.025}[tensor.tensor_type.name], tensor.name
    assert reader.get_field("general.file_type").contents() == 114
    assert reader.get_field("gguf_golf.format").contents() == 1


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            b"gguf_golf.format",
            b"gguf_golf.formax",
            "written by an earlier, unreleased gguf-golf: convert the model again",
        ),
        (
            b"gguf_golf.format\x04\0\0\0\x01",
            b"gguf_golf.format\x04\0\0\0\x02",
            "of format 2, this llama.cpp reads format 1: convert the model again",
        ),
    ],
)
def test_llama_cpp_refuses_tcq_tensors_of_another_format(
    before: bytes, after: bytes, said: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    path, content = tmp_path / "m.gguf", tiny("tcq3").read_bytes()
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, after))
    with pytest.raises(InputError, match=said):
        LoadedModel(path)


@pytest.mark.parametrize(("type_name", "needed"), [("tcq3", "gguf-golf's llama.cpp, for tcq3"), ("q4_k", None)])
def test_a_file_says_what_it_needs(type_name: str, needed: str | None, tmp_path: Path, tiny_dir: Path) -> None:
    out = tmp_path / "tiny.gguf"
    assert run("convert", tiny_dir, "-o", out, "--type", type_name, "--embedding-type", "q6_k")[0] == 0
    assert inspect(out).needs == needed
    with GgufHeader(out) as header:
        said = header.text("gguf_golf.requires")
    if needed is None:
        assert said is None
    else:
        assert said is not None and said.startswith(f"{needed}; any other llama.cpp refuses this file.")


def test_bf16_of_a_bf16_checkpoint_is_exact(tmp_path: Path, tiny_dir: Path) -> None:
    out = tmp_path / "tiny.gguf"
    assert run("convert", tiny_dir, "-o", out)[0] == 0
    again = open_model(out)
    for tensor in open_model(tiny_dir).tensors:
        assert np.array_equal(tensor.load(), again.tensor(tensor.name).load())
    assert "gguf_golf.format" not in {field.key for field in again.metadata}


def test_without_a_type_the_precision_of_the_source_stays(tmp_path: Path, tiny_dir: Path) -> None:
    for name in ("f32", "f16", "bf16"):
        source, again = tmp_path / f"{name}.gguf", tmp_path / f"{name}-again.gguf"
        assert run("convert", tiny_dir, "-o", source, "--type", name)[0] == 0
        assert run("convert", source, "-o", again)[0] == 0
        types = {tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(again).tensors if len(tensor.shape) > 1}
        assert types == {name}


def test_a_gguf_can_be_the_source_and_a_quantized_one_must_be_allowed(tmp_path: Path, tiny_dir: Path) -> None:
    plain, once, twice = tmp_path / "a.gguf", tmp_path / "b.gguf", tmp_path / "c.gguf"
    assert run("convert", tiny_dir, "-o", plain)[0] == 0
    assert run("convert", plain, "-o", once, "--type", "q8_0")[0] == 0
    code, _, error = run("convert", once, "-o", twice, "--type", "tcq2")
    assert code != 0
    assert isinstance(error, InputError)
    assert "full precision" in str(error)
    assert not twice.exists()
    assert run("convert", once, "-o", twice, "--type", "tcq2", "--allow-requantize")[0] == 0


def test_rows_that_256_does_not_divide_are_said(tmp_path: Path, tiny_dir: Path) -> None:
    code, output, _ = run("convert", tiny_dir, "-o", tmp_path / "a.gguf", "--type", "tcq3")
    assert code == 0
    rows = {t.shape[-1] for t in open_model(tiny_dir).tensors if len(t.shape) > 1}
    assert ("note: rows of" in output) == any(n % 256 for n in rows)


def test_an_expert_that_calibration_never_reached_is_said_and_takes_its_siblings_hessian(
    tmp_path: Path, with_experts: Callable[..., Path], demo_text: Path
) -> None:
    model = with_experts(n_expert=3, n_used=1, n_layers=1)  # the last one is never chosen
    imatrix, hessian = tmp_path / "imatrix.gguf", tmp_path / "hessian.gguf"
    options = ("--text", demo_text, "--chunks", 4, "--ctx", 256, "--hessian", hessian)
    assert run("imatrix", model, "-o", imatrix, *options)[0] == 0
    to_tcq2 = ("convert", model, "--type", "tcq2", "--imatrix", imatrix, "-o")
    plain = run(*to_tcq2, tmp_path / "plain.gguf")
    fed = run(*to_tcq2, tmp_path / "fed.gguf", "--hessian", hessian, "--embedding-type", "tcq4")
    assert plain[0] == fed[0] == 0
    for _, output, _ in (plain, fed):
        assert "the calibration text never chose 3 of 9 experts' matrices" in output
    assert "no error feedback for token_embd.weight: not in" in fed[1]
    assert "no error feedback" not in plain[1]

    found, source = Hessians(hessian), open_model(model)
    files = [open_model(tmp_path / name, allow_requantize=True) for name in ("plain.gguf", "fed.gguf")]
    for kind in ("gate", "up", "down"):
        name = f"blk.0.ffn_{kind}_exps.weight"
        errors = [file.tensor(name).load() - source.tensor(name).load() for file in files]
        for expert in (0, 1, 2):
            h = found.pooled(name) if expert == 2 else found.get(name, expert)
            assert h is not None
            at_output = [float(np.sum(error[expert] @ h * error[expert])) for error in errors]
            assert at_output[1] < 0.9 * at_output[0], (name, expert, at_output)
        assert found.get(name, 2) is None


def test_an_input_is_never_replaced(tmp_path: Path, tiny_dir: Path, demo_text: Path) -> None:
    base, imatrix, recipe = tmp_path / "base.gguf", tmp_path / "imatrix.gguf", tmp_path / "recipe.toml"
    assert run("convert", tiny_dir, "-o", base)[0] == 0
    assert run("imatrix", base, "--text", demo_text, "-o", imatrix, "--chunks", 1, "--ctx", 64)[0] == 0
    recipe.write_text('format = 1\n[tensors]\n"*" = "q8_0"\n')
    symlink, hardlink = tmp_path / "symlink.gguf", tmp_path / "hardlink.gguf"
    symlink.symlink_to(base)
    hardlink.hardlink_to(base)
    before = {path: path.read_bytes() for path in (base, imatrix, recipe)}
    for out in (base, symlink, hardlink, imatrix):
        code, _, error = run("convert", base, "-o", out, "--type", "tcq2", "--imatrix", imatrix, "--force")
        assert code != 0 and "is also an input" in str(error), out
    for out in (base, symlink, hardlink, recipe):
        code, _, error = run("quantize", base, "--recipe", recipe, "-o", out, "--force")
        assert code != 0 and "is also an input" in str(error), out
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gguf"] * 4 + [".toml"]


def test_a_file_of_another_program_is_replaced_with_force_alone(tmp_path: Path, tiny_dir: Path) -> None:
    out = tmp_path / "thesis.gguf"
    out.write_bytes(b"years of work")
    code, _, error = run("convert", tiny_dir, "-o", out)
    assert code != 0 and "--force" in str(error)
    assert out.read_bytes() == b"years of work"
    assert run("convert", tiny_dir, "-o", out, "--force")[0] == 0
    assert run("convert", tiny_dir, "-o", out, "--type", "q8_0")[0] == 0, "our own file needs no force"


def test_a_conversion_of_a_changed_checkpoint_is_not_continued(tmp_path: Path, tiny_dir: Path) -> None:
    """The middle of a tensor changed between two runs, which first and last rows do not show."""
    source = tmp_path / "model"
    shutil.copytree(tiny_dir, source)
    model = open_model(source)
    before = made_from(source, model, Guide())
    assert before == made_from(source, open_model(source), Guide())
    weights = source / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert made_from(source, open_model(source), Guide()) != before


def test_the_same_sums_over_more_tokens_of_an_expert_are_another_imatrix(tiny: Callable[[str], Path]) -> None:
    source = tiny("f32")
    model = open_model(source)
    sums = np.ones((2, 256), np.float32)
    guides = [Guide(Imatrix({"experts": ImatrixEntry(sums, np.array([1, n]))})) for n in (1, 9)]
    assert made_from(source, model, guides[0]) != made_from(source, model, guides[1])


def with_weights(tiny: Path, out: Path, changed: dict[str, float]) -> Path:
    """golf-tiny as F32 with one weight of each of these tensors replaced."""
    reader, writer = gguf.GGUFReader(tiny), gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub_type = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        values = np.array(tensor.data)
        if tensor.name in changed:
            values[3, 5] = changed[tensor.name]
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.parametrize(
    ("type_name", "weight"),
    [("f16", 1e5), ("q8_0", 1e7), ("q4_0", -6e5), ("q5_0", 1.1e6), ("iq4_nl", 1e7), ("q4_k", 1e8), ("tcq3", 1e5)],
)
def test_a_tensor_whose_weights_a_type_cannot_hold_is_kept_exactly_and_said(
    tiny: Callable[[str], Path], tmp_path: Path, type_name: str, weight: float
) -> None:
    huge = {"blk.0.ffn_up.weight": weight, "blk.2.attn_q.weight": 2 * weight}
    source = with_weights(tiny("f32"), tmp_path / "source.gguf", huge)
    code, output, _ = run("convert", source, "-o", tmp_path / "out.gguf", "--type", type_name)
    assert code == 0
    out, exact = (open_model(path, allow_requantize=True) for path in (tmp_path / "out.gguf", source))
    for name in huge:
        assert f"note: {name} is kept as f32: its weights reach" in output
        assert np.array_equal(out.tensor(name).load(), exact.tensor(name).load())
    assert out.tensor("blk.0.ffn_down.weight").source_type.lower() == type_name
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'format = 1\n[tensors]\n"*" = "{type_name}"\n')
    code, _, error = run("quantize", source, "--recipe", recipe, "-o", tmp_path / "planned.gguf")
    assert code != 0 and f"blk.0.ffn_up.weight cannot be stored as {type_name}" in str(error)


def test_weights_that_a_type_can_hold_are_not_widened(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    source = with_weights(tiny("f32"), tmp_path / "source.gguf", {"blk.0.ffn_up.weight": 6e4})
    code, output, _ = run("convert", source, "-o", tmp_path / "out.gguf", "--type", "f16")
    assert code == 0 and "kept as" not in output
    assert open_model(tmp_path / "out.gguf").tensor("blk.0.ffn_up.weight").source_type == "F16"


def test_an_imatrix_with_holes_or_of_another_model_is_said(
    tiny: Callable[[str], Path], demo_text: Path, tmp_path: Path
) -> None:
    base, full, partial, foreign = tiny("bf16"), *(tmp_path / f"{name}.gguf" for name in ("full", "partial", "foreign"))
    known = collect(base, demo_text, n_ctx=64, n_chunks=1, threads=1, out=full)
    holes = {name: entry for name, entry in known.entries.items() if not name.startswith("blk.2.")}
    imatrix_file.write(replace(known, entries=holes), partial)
    elsewhere = {name.replace("blk.", "blk.9"): entry for name, entry in known.entries.items()}
    imatrix_file.write(replace(known, entries=elsewhere), foreign)
    to = ("convert", base, "-o", tmp_path / "out.gguf", "--imatrix")
    assert "nothing about" not in run(*to, full, "--type", "q4_k")[1]
    code, output, _ = run(*to, partial, "--type", "q4_k")
    assert code == 0 and "note: the imatrix has nothing about blk.2.attn_q.weight and 6 more" in output
    code, _, error = run(*to, partial, "--type", "iq2_xxs")
    assert code != 0 and "nothing about blk.2.attn_q.weight and 6 more" in str(error)
    code, _, error = run(*to, foreign, "--type", "q4_k")
    assert code != 0 and "collected on another model" in str(error)
