"""The imatrix file: round trip, importance, and refusals."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_golf.calibrate import imatrix
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.errors import DataError, InputError


def two_entries() -> Imatrix:
    rng = np.random.default_rng(1)
    dense = ImatrixEntry(rng.random((1, 32)), np.array([512]), rng.random((1, 32), np.float32))
    experts = ImatrixEntry(rng.random((3, 16)), np.array([40, 0, 7]))
    return Imatrix({"blk.0.attn_q.weight": dense, "blk.0.ffn_up_exps.weight": experts}, ["a.txt"], 4, 128)


def test_a_massive_channel_does_not_hide_the_others_of_its_block() -> None:
    sums = np.ones((1, 600), np.float32)
    sums[0, 3] = 1e12
    importance = Imatrix({"w": ImatrixEntry(sums, np.array([1]))}).importance("w")[0]
    assert importance[3] == np.float32(1e12)
    np.testing.assert_allclose(np.delete(importance[:256], 3), 1e6, rtol=1e-6)
    np.testing.assert_array_equal(importance[256:], 1)


def test_round_trip(tmp_path: Path) -> None:
    written = two_entries()
    imatrix.write(written, tmp_path / "i.gguf")
    back = imatrix.read(tmp_path / "i.gguf")
    assert (back.datasets, back.chunk_count, back.chunk_size) == (["a.txt"], 4, 128)
    assert back.entries.keys() == written.entries.keys()
    for name, entry in written.entries.items():
        np.testing.assert_array_equal(back.entries[name].in_sum2, entry.in_sum2.astype(np.float32))
        np.testing.assert_array_equal(back.entries[name].counts, entry.counts)
    np.testing.assert_array_equal(back.entries["blk.0.attn_q.weight"].peak, written.entries["blk.0.attn_q.weight"].peak)
    assert [path.name for path in tmp_path.iterdir()] == ["i.gguf"]


def test_the_sums_and_statistics_of_newer_llama_cpps_are_passed_over(tmp_path: Path) -> None:
    """llama-imatrix of b11549: `<weight>.in_sum`, `<weight>.stats`, which may be NaN, and entries of nextn layers."""
    writer = gguf.GGUFWriter(tmp_path / "i.gguf", "unused")
    writer.add_type("imatrix")
    writer.add_uint32("imatrix.chunk_count", 3)
    writer.add_uint32("imatrix.n_layer_nextn", 1)
    writer.add_array("imatrix.stats_schema", ["sum_sq", "mean", "cossim"])
    for name in ("blk.0.attn_q.weight", "nextn.pre_projection.weight"):
        writer.add_tensor(f"{name}.in_sum2", np.full((1, 32), 6, np.float32))
        writer.add_tensor(f"{name}.counts", np.full((1, 1), 3, np.float32))
        writer.add_tensor(f"{name}.in_sum", np.full((1, 32), -2, np.float32))
        writer.add_tensor(f"{name}.stats", np.array([2, 0.5, np.nan], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    found = imatrix.read(tmp_path / "i.gguf")
    assert set(found.entries) == {"blk.0.attn_q.weight", "nextn.pre_projection.weight"}
    np.testing.assert_array_equal(found.importance("blk.0.attn_q.weight"), np.full((1, 32), 2))


def test_importance_is_the_mean_and_an_unused_expert_gets_ones() -> None:
    matrix = two_entries()
    entry = matrix.entries["blk.0.ffn_up_exps.weight"]
    importance = matrix.importance("blk.0.ffn_up_exps.weight")
    np.testing.assert_allclose(importance[0], entry.in_sum2[0] / 40, rtol=1e-6)
    np.testing.assert_array_equal(importance[1], np.ones(16))
    with pytest.raises(InputError, match=r"no entry for blk\.9"):
        matrix.importance("blk.9.attn_q.weight")


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.gguf"
    with pytest.raises(InputError, match="no such file"):
        imatrix.read(path)
    path.write_bytes(b"\x05\x00\x00\x00old dat")
    with pytest.raises(InputError, match=r"old \.dat file"):
        imatrix.read(path)
    imatrix.write(two_entries(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="truncated"):
        imatrix.read(path)
    model = gguf.GGUFWriter(path, "llama")
    model.add_tensor("a.in_sum2", np.ones((1, 4), np.float32))
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()
    with pytest.raises(InputError, match="not an imatrix"):
        imatrix.read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-3])
@pytest.mark.parametrize("what", ["in_sum2", "counts", "peak"])
def test_numbers_that_are_not_sums_of_squares_are_refused_by_name(tmp_path: Path, what: str, value: float) -> None:
    matrix = two_entries()
    entry = matrix.entries["blk.0.attn_q.weight"]
    entry.counts = entry.counts.astype(np.float64)  # type: ignore[assignment]
    getattr(entry, what).reshape(-1)[0] = value
    imatrix.write(matrix, tmp_path / "i.gguf")
    with pytest.raises(DataError, match=r"blk\.0\.attn_q\.weight\.\w+ holds NaN, Inf or negative"):
        imatrix.read(tmp_path / "i.gguf")


@pytest.mark.parametrize(
    ("suffix", "values"),
    [
        ("counts", np.ones((2, 1), np.float32)),
        ("in_peak", np.ones((3, 8), np.float32)),
        ("in_sum2", np.ones((3, 16), np.float16)),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(tmp_path: Path, suffix: str, values: np.ndarray) -> None:
    arrays = {"in_sum2": np.ones((3, 16), np.float32), "counts": np.ones((3, 1), np.float32)} | {suffix: values}
    writer = gguf.GGUFWriter(tmp_path / "i.gguf", "")
    writer.add_type("imatrix")
    for name, array in arrays.items():
        writer.add_tensor(f"blk.0.ffn_up_exps.weight.{name}", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"blk\.0\.ffn_up_exps\.weight"):
        imatrix.read(tmp_path / "i.gguf")


def test_channels_that_were_always_zero_count_as_the_least_of_the_others() -> None:
    sums = np.array([[0, 4, 8, 0], [0, 0, 0, 0]], np.float64)
    matrix = Imatrix({"w": ImatrixEntry(sums, np.array([4]))})
    np.testing.assert_array_equal(matrix.importance("w"), [[1, 1, 2, 1], [1, 1, 1, 1]])


def test_the_command_that_the_error_names_converts_an_old_file(
    tmp_path: Path, llama_tool: Callable[[str], Path]
) -> None:
    old, new = tmp_path / "OLD.dat", tmp_path / "NEW.gguf"
    name = b"blk.0.attn_q.weight"
    sums = np.arange(1, 257, dtype=np.float32)  # means over calls, times the calls
    entry = struct.pack("<i", len(name)) + name + struct.pack("<ii", 4, len(sums)) + (4 * sums).tobytes()
    old.write_bytes(struct.pack("<i", 1) + entry + struct.pack("<ii", 4, 5) + b"a.txt")
    with pytest.raises(InputError) as caught:
        imatrix.read(old)
    words = str(caught.value).split("gguf-golf tool ")[1].split(" (")[0].split()
    subprocess.run([llama_tool(words[0]), *words[1:]], cwd=tmp_path, check=True, capture_output=True)
    read = imatrix.read(new)
    np.testing.assert_allclose(read.importance(name.decode())[0], sums)
    assert (read.datasets, read.chunk_count) == (["a.txt"], 4)


def test_how_often_tokens_are_said_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    entry = ImatrixEntry(np.ones((1, 8)), np.array([1]))
    counts = np.array([1, 5, 0, 5, 2, 1])
    imatrix.write(Imatrix({"blk.0.attn_q.weight": entry}, token_counts=counts), path)
    found = imatrix.read(path)
    assert found.token_counts is not None
    assert np.array_equal(found.token_counts, counts)
    assert found.frequent_tokens(2).tolist() == [1, 3]
    assert found.frequent_tokens(4).tolist() == [0, 1, 3, 4]
    imatrix.write(Imatrix({"blk.0.attn_q.weight": entry}), path)
    assert imatrix.read(path).token_counts is None
