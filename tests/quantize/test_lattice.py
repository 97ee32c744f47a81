"""Weights on a quantization lattice are found and stored exactly; gguf-py decodes, independently of ggml."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from gguf_golf.cli import cli
from gguf_golf.errors import DataError
from gguf_golf.formats import quant_types
from gguf_golf.models import LazyTensor, Model, open_model
from gguf_golf.quantize import lattice
from gguf_golf.quantize.stored import stored_exactly
from tests.models.conftest import write_gguf

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
LEVELS = {"q4_0": 7, "q5_0": 15, "q8_0": 127}
F32 = quant_types.get("f32")


def rounded(values: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
    member = gguf.GGMLQuantizationType[precision]
    return np.asarray(gguf.dequantize(gguf.quantize(values, member), member), np.float32)


def on_lattice(name: str, shape: tuple[int, ...], precision: str = "F32", seed: int = 0) -> NDArray[np.float32]:
    """Codes times one scale for each row, as training makes them: not every block has the largest code."""
    rng = np.random.default_rng(seed)
    scale_shape = (*shape[:-1], 1)
    if name == "mxfp4":
        codes = rng.choice([-1, 1], shape) * rng.choice(E2M1, shape)
        scales = np.ldexp(1.0, rng.integers(-9, -4, scale_shape))
    else:
        codes = np.clip(np.rint(rng.standard_normal(shape) * LEVELS[name] / 2.5), -LEVELS[name] - 1, LEVELS[name])
        scales = np.float16(rng.uniform(0.02, 0.1, scale_shape) / LEVELS[name]).astype(np.float64)
    return rounded((codes * scales).astype(np.float32), precision)


def ordinary(shape: tuple[int, ...], precision: str = "F32") -> NDArray[np.float32]:
    return rounded(np.random.default_rng(5).standard_normal(shape).astype(np.float32) * np.float32(0.03), precision)


def model_of(weights: dict[str, NDArray[np.float32]], precision: str = "F32") -> Model:
    def tensor(name: str, values: NDArray[np.float32]) -> LazyTensor:
        rows = values.reshape(-1, values.shape[-1])
        return LazyTensor(name, values.shape, precision, lambda first, last: rows[first:last].copy())

    return Model("llama", [], [tensor(name, values) for name, values in weights.items()])


@pytest.mark.parametrize("precision", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("name", lattice.LATTICES)
def test_weights_on_a_lattice_are_stored_in_the_smallest_type_that_gives_them_back(name: str, precision: str) -> None:
    weights = on_lattice(name, (3, 16, 64), precision)
    weights[1, 3] = 0
    model = model_of({"blk.0.ffn_up_exps.weight": weights}, precision)
    found = lattice.find(model, {"blk.0.ffn_up_exps.weight": F32})
    assert [t.name for t in found.values()] == [name]
    parts = list(stored_exactly(model.tensors[0], quant_types.get(name)).parts())
    decoded = gguf.dequantize(np.concatenate(parts), gguf.GGMLQuantizationType[name.upper()])
    assert np.array_equal(rounded(np.asarray(decoded, np.float32), precision).reshape(weights.shape), weights)


@pytest.mark.parametrize("name", lattice.LATTICES)
def test_what_ggml_has_dequantized_is_found_again(name: str) -> None:
    member = gguf.GGMLQuantizationType[name.upper()]
    for precision in ("F32", "BF16"):
        weights = rounded(np.asarray(gguf.dequantize(gguf.quantize(ordinary((16, 96)), member), member)), precision)
        assert lattice.encode(weights, quant_types.get(name), precision) is not None, precision


@pytest.mark.parametrize("precision", ["F32", "BF16", "F16"])
def test_ordinary_weights_are_on_no_lattice(precision: str) -> None:
    names = ("token_embd.weight", "blk.0.ffn_up.weight")
    model = model_of({name: ordinary((40, 64), precision) for name in names}, precision)
    assert lattice.find(model, dict.fromkeys(names, F32)) == {}


def test_one_weight_beside_the_lattice_is_enough_to_leave_it() -> None:
    weights = on_lattice("q4_0", (50, 64))
    weights[37, 40] *= np.float32(1.01)
    assert lattice.find(model_of({"blk.0.ffn_up.weight": weights}), {"blk.0.ffn_up.weight": F32}) == {}


def test_zeros_small_vectors_and_rows_of_other_lengths_are_left_alone() -> None:
    weights = {
        "blk.0.ffn_up.weight": np.zeros((8, 64), np.float32),
        "blk.0.attn_norm.weight": on_lattice("q4_0", (64,)),
        "blk.0.ffn_down.weight": on_lattice("q4_0", (8, 64))[:, :48],
    }
    assert lattice.find(model_of(weights), dict.fromkeys(weights, F32)) == {}


@pytest.mark.parametrize(("asked", "kept"), [("bf16", True), ("q8_0", True), ("q4_0", True), ("iq4_xs", False)])
def test_a_smaller_type_is_respected(asked: str, kept: bool) -> None:
    model = model_of({"blk.0.ffn_up.weight": on_lattice("q4_0", (8, 256))})
    found = lattice.find(model, {"blk.0.ffn_up.weight": quant_types.get(asked)})
    assert {name: t.name for name, t in found.items()} == ({"blk.0.ffn_up.weight": "q4_0"} if kept else {})


@pytest.mark.parametrize("largest", [1e-40, 1e-9, 65504.0, 1e30])
def test_weights_of_any_magnitude_are_looked_at_without_a_warning(largest: float) -> None:
    weights = ordinary((4, 64)) / np.float32(0.1) * np.float32(largest)
    with np.errstate(all="raise", under="ignore"):
        assert lattice.find(model_of({"blk.0.ffn_up.weight": weights}), {"blk.0.ffn_up.weight": F32}) == {}


def test_a_source_that_changes_while_it_is_read_is_an_error() -> None:
    tensor = model_of({"blk.0.ffn_up.weight": ordinary((4, 64))}).tensors[0]
    with pytest.raises(DataError, match=r"blk\.0\.ffn_up\.weight changed while it was being read"):
        list(stored_exactly(tensor, quant_types.get("q4_0")).parts())


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(a) for a in args])
    return result.exit_code, result.output + str(result.exception or "")


@pytest.fixture
def trained(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """golf-tiny with two tensors on the lattice of Q4_0."""
    model = open_model(tiny("f32"))
    for i, tensor in enumerate(model.tensors):
        if tensor.name in ("blk.0.ffn_up.weight", "blk.1.attn_q.weight"):
            rows = on_lattice("q4_0", tensor.shape, seed=i)
            model.tensors[i] = replace(tensor, read_rows=lambda first, last, rows=rows: rows[first:last].copy())
    path = tmp_path / "trained.gguf"
    write_gguf(model, path)
    return path


def test_convert_keeps_the_lattice_and_says_so(trained: Path, tmp_path: Path) -> None:
    source, names = open_model(trained), {"blk.0.ffn_up.weight", "blk.1.attn_q.weight"}
    for asked in ("q8_0", "f16", "q4_0"):
        out = tmp_path / f"{asked}.gguf"
        code, output = run("convert", trained, "-o", out, "--type", asked)
        assert code == 0, output
        assert "2 tensors stored as q4_0, exactly" in output
        written = open_model(out, allow_requantize=True)
        for name in names:
            assert written.tensor(name).source_type == "Q4_0"
            assert np.array_equal(written.tensor(name).load(), source.tensor(name).load())
        assert written.tensor("blk.0.ffn_down.weight").source_type == asked.upper()
    assert run("convert", tmp_path / "f16.gguf", "-o", tmp_path / "a.gguf", "--type", "tcq3")[0] == 0
    assert open_model(tmp_path / "a.gguf", allow_requantize=True).tensor("blk.0.ffn_up.weight").source_type == "TCQ3"
    code, output = run("convert", trained, "-o", tmp_path / "b.gguf", "--type", "q8_0", "--no-keep-lattice")
    assert code == 0 and "exactly" not in output
    assert open_model(tmp_path / "b.gguf", allow_requantize=True).tensor("blk.0.ffn_up.weight").source_type == "Q8_0"


def test_a_recipe_keeps_the_lattice_too(trained: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out.gguf"
    recipe.write_text('format = 1\n[tensors]\n"*" = "q8_0"\n')
    code, output = run("quantize", trained, "--recipe", recipe, "-o", out)
    assert code == 0, output
    assert "2 tensors stored as q4_0, exactly" in output
    code, output = run("quantize", trained, "--recipe", recipe, "-o", out, "--no-keep-lattice")
    assert code == 0 and "exactly" not in output
