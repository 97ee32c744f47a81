"""GGUF sources: copied exactly, refused when quantized or damaged, never a crash on a hostile file."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFEndian, GGUFReader, GGUFValueType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_golf.errors import GolfError, InputError
from gguf_golf.formats.quant_types import TCQ, register_with_gguf
from gguf_golf.models import open_model
from tests.models.conftest import small_model_file, write_gguf


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model_file(tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_a_fresh_process_reads_our_types(tiny: Callable[[str], Path]) -> None:
    # gguf-py has to be taught them, which other tests of this process have done
    command = [sys.executable, "-m", "gguf_golf", "inspect", tiny("tcq2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tcq2" in done.stdout


def test_every_kind_of_metadata_is_copied(small_file: Path) -> None:
    types = GGUFValueType
    assert [tuple(field) for field in open_model(small_file).metadata] == [
        ("general.architecture", "llama", types.STRING, None),
        ("k.u8", 8, types.UINT8, None),
        ("k.i8", -8, types.INT8, None),
        ("k.u16", 16, types.UINT16, None),
        ("k.i16", -16, types.INT16, None),
        ("k.u32", 32, types.UINT32, None),
        ("k.i32", -32, types.INT32, None),
        ("k.u64", 2**63, types.UINT64, None),
        ("k.i64", -(2**62), types.INT64, None),
        ("k.f32", 0.5, types.FLOAT32, None),
        ("k.f64", 0.1, types.FLOAT64, None),
        ("k.bool", True, types.BOOL, None),
        ("k.string", "naïve", types.STRING, None),
        ("k.ints", [1, -2, 3], types.ARRAY, types.INT32),
        ("k.floats", [0.5, 1.5], types.ARRAY, types.FLOAT32),
        ("k.bools", [True, False], types.ARRAY, types.BOOL),
        ("k.strings", ["a", "", "é"], types.ARRAY, types.STRING),
    ]


def test_rows_of_a_stack_are_counted_through(small_file: Path) -> None:
    stack = open_model(small_file).tensor("stack")
    assert (stack.shape, stack.n_rows, stack.source_type) == ((2, 3, 4), 6, "F16")
    np.testing.assert_array_equal(stack.load(), np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    np.testing.assert_array_equal(stack.load_rows(2, 4), np.arange(8, 16, dtype=np.float32).reshape(2, 4))


def test_tokens_that_are_no_utf8_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", [b"\xff\xfe", b"ok"])
    writer.add_tensor("w", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert open_model(path).metadata[1].value == [b"\xff\xfe", "ok"]


@pytest.mark.parametrize("type_", [GGMLQuantizationType.BF16, GGMLQuantizationType.F32])
def test_a_full_precision_gguf_equals_its_checkpoint(
    type_: GGMLQuantizationType, tiny_dir: Path, tmp_path: Path
) -> None:
    model = open_model(tiny_dir)
    copy = open_model(write_gguf(model, tmp_path / "m.gguf", type_))
    assert [field.key for field in copy.metadata] == [field.key for field in model.metadata]
    for tensor in model.tensors:
        other = copy.tensor(tensor.name)
        assert other.source_type == (type_.name if len(tensor.shape) > 1 else "F32")
        np.testing.assert_array_equal(other.load(), tensor.load())


@pytest.mark.parametrize("type_", [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_1])
def test_quantized_sources_need_permission(type_: GGMLQuantizationType, tiny_dir: Path, tmp_path: Path) -> None:
    path = write_gguf(open_model(tiny_dir), tmp_path / "m.gguf", type_)
    with pytest.raises(InputError, match=rf"already quantized \({type_.name}\): start from full precision"):
        open_model(path)
    model = open_model(path, allow_requantize=True)
    for stored in GGUFReader(path).tensors:
        expected = gguf.dequantize(stored.data, stored.tensor_type)
        tensor = model.tensor(stored.name)
        np.testing.assert_array_equal(tensor.load(), expected)
        half = tensor.n_rows // 2
        np.testing.assert_array_equal(tensor.load_rows(half, tensor.n_rows), expected.reshape(tensor.n_rows, -1)[half:])


def test_split_files_are_read_together(tiny_dir: Path, tmp_path: Path) -> None:
    model = open_model(tiny_dir)
    write_gguf(model, tmp_path / "m.gguf", split=20)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert [part.name for part in parts] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    for part in parts:
        whole = open_model(part)
        assert [field.key for field in whole.metadata] == [field.key for field in model.metadata]
        assert {tensor.name for tensor in whole.tensors} == {tensor.name for tensor in model.tensors}
    parts[1].unlink()
    with pytest.raises(InputError, match=r"1 of 2 parts are missing \(m-00002-of-00002.gguf"):
        open_model(parts[0])


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    writer = GGUFWriter(path, "llama", endianess=GGUFEndian.BIG)
    writer.add_tensor("w", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="big-endian"):
        open_model(path)


def test_integer_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ints.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("ids", np.ones((2, 2), np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="ids holds integers"):
        open_model(path)


@pytest.mark.parametrize("content", [b"", b"GGU", b"GGUF", b"GGML" * 20, b"PK\x03\x04" * 100, b"GGUF" + b"\xff" * 60])
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or not a GGUF"):
        open_model(path)


def test_files_cut_anywhere_are_refused(small_file: Path, tmp_path: Path) -> None:
    content = small_file.read_bytes()
    needed = max(t.data_offset + t.n_bytes for t in GGUFReader(small_file).tensors)  # after it comes padding only
    path = tmp_path / "cut.gguf"
    for size in range(needed):
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            open_model(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_files_never_crash(changes: list[tuple[int, int]], small_file: Path, tmp_path: Path) -> None:
    content = bytearray(small_file.read_bytes())
    for position, byte in changes:
        content[position % len(content)] = byte
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    try:
        for tensor in open_model(path, allow_requantize=True).tensors:
            tensor.load()
    except GolfError:
        pass


def test_a_part_of_a_split_model_is_one_under_any_name(tmp_path: Path) -> None:
    """What counts is split.count in the file: a renamed first part is not the model."""
    model = open_model(small_model_file(tmp_path / "small.gguf"))
    write_gguf(model, tmp_path / "m.gguf", split=1)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    renamed = parts[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(InputError, match=r"is part 1 of 2 of a split model.*name the parts NAME-00001-of-00002.gguf"):
        open_model(renamed)
    renamed.rename(parts[1])
    parts[0].write_bytes(parts[1].read_bytes())
    with pytest.raises(InputError, match="is not part 2 of 2 of this model"):
        open_model(parts[0])
    small_model_file(tmp_path / "whole-00001-of-00007.gguf")
    assert len(open_model(tmp_path / "whole-00001-of-00007.gguf").tensors) == 2


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, "its tcq2 tensors were written by an earlier, unreleased gguf-golf: convert the model again"),
        (2, "its tcq2 tensors are of format 2, this gguf-golf reads format 1: convert the model again"),
        (1, None),
    ],
)
def test_tcq_tensors_of_another_format_are_refused(version: int | None, said: str | None, tmp_path: Path) -> None:
    register_with_gguf()
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "llama")
    if version is not None:
        writer.add_uint32("gguf_golf.format", version)
    writer.add_tensor("w", np.zeros((3, 68), np.uint8), raw_dtype=GGMLQuantizationType(TCQ["tcq2"].id))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if said is None:
        assert open_model(path, allow_requantize=True).tensor("w").shape == (3, 256)
    else:
        with pytest.raises(InputError, match=said):
            open_model(path, allow_requantize=True)
