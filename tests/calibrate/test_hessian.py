"""Hessians collected while the model runs: sums against NumPy, sharing, experts, and damaged files."""

import resource
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_golf.calibrate.collect import collect
from gguf_golf.calibrate.hessian import Accumulator, Hessians, Rows, Survey
from gguf_golf.errors import DataError, InputError


def feed(path: Path, batches: list[Rows]) -> Hessians:
    survey = Survey()
    for rows in batches:
        survey.observe(rows)
    with Accumulator(path, survey) as sums:
        for rows in batches:
            sums.observe(rows)
    return Hessians(path)


def test_sums_sharing_and_experts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal((n, 32)).astype(np.float32) for n in (50, 40, 7))
    found = feed(
        tmp_path / "h.gguf",
        [
            Rows("q", "norm", 1, 0, x),
            Rows("k", "norm", 1, 0, x),
            Rows("other", "norm", 1, 0, y),  # the same name, another input
            Rows("experts", "ffn", 3, 1, y),
            Rows("experts", "ffn", 3, 1, z),
        ],
    )
    assert set(found) == {"q", "k", "other", "experts"}
    assert found.input_of("k") == "q" and found.input_of("other") == "other"
    for weight, rows in (("q", x), ("k", x), ("other", y)):
        hessian = found.get(weight)
        assert hessian is not None
        np.testing.assert_allclose(hessian, rows.T.astype(float) @ rows / len(rows), atol=1e-5)
    both = np.concatenate([y, z]).astype(float)
    hessian = found.get("experts", 1)
    assert hessian is not None
    np.testing.assert_allclose(hessian, both.T @ both / len(both), atol=1e-5)
    assert found.get("experts", 0) is None
    assert found.shape("experts") == (3, 32)
    assert found.fingerprint() != feed(tmp_path / "i.gguf", [Rows("q", "norm", 1, 0, x)]).fingerprint()


def test_diagonal_is_the_imatrix(tiny: Callable[[str], Path], demo_text: Path, tmp_path: Path) -> None:
    path = tmp_path / "h.gguf"
    imatrix = collect(tiny("f16"), demo_text, n_chunks=2, threads=2, hessian_path=path)
    found = Hessians(path)
    assert set(found) == set(imatrix.entries)
    assert found.input_of("blk.0.attn_k.weight") == found.input_of("blk.0.attn_v.weight")
    assert found.input_of("blk.0.attn_k.weight") != found.input_of("blk.1.attn_k.weight")
    for weight in found:
        hessian = found.get(weight)
        assert hessian is not None
        np.testing.assert_allclose(np.diag(hessian), imatrix.importance(weight)[0], rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(hessian, hessian.T, rtol=1e-3, atol=1e-4 * np.diag(hessian).max())


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    bad = np.full((20, 32), np.nan, np.float32)
    with pytest.raises(DataError, match="damaged"):
        feed(tmp_path / "h.gguf", [Rows("q", "norm", 1, 0, bad)])
    assert list(tmp_path.iterdir()) == []


def test_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Hessians(tmp_path / "absent")
    (tmp_path / "text").write_text("x" * 100)
    with pytest.raises(InputError, match="not a GGUF file"):
        Hessians(tmp_path / "text")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("q.hessian", np.ones((1, 4, 5), np.float32)),
        ("q.hessian", np.ones((1, 4, 4), np.float16)),
        ("q.counts", np.ones(2, np.float32)),
        ("q.counts", np.array([np.nan], np.float32)),
        ("q.counts", np.array([-1], np.float32)),
        ("other.counts", np.ones(1, np.float32)),
    ],
)
def test_hessians_of_nonsense_are_refused_by_name(tmp_path: Path, name: str, values: np.ndarray) -> None:
    arrays = {"q.hessian": np.ones((1, 4, 4), np.float32), "q.counts": np.ones(1, np.float32)}
    if name not in arrays:
        arrays.pop("q.counts")
    writer = gguf.GGUFWriter(tmp_path / "h.gguf", "")
    writer.add_type("hessian")
    writer.add_array("hessian.weights", ["q"])
    writer.add_array("hessian.inputs", ["q"])
    for each, array in (arrays | {name: values}).items():
        writer.add_tensor(each, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises((InputError, DataError), match=r"h\.gguf: q "):
        Hessians(tmp_path / "h.gguf")


def test_a_full_disk_is_an_error_before_any_work(tmp_path: Path) -> None:
    x = np.ones((20, 64), np.float32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the sums take 16 kB
        with pytest.raises(InputError, match=r"h\.gguf: cannot be written \(File too large\)"):
            feed(tmp_path / "h.gguf", [Rows("q", "norm", 1, 0, x)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
