"""The benchmark measures what it says it measures; how long things take is not tested."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.bench import kernels, models, synthetic
from gguf_golf.bench.run import bench
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types


class _Counted(kernels._Products):
    """Products that know how many they are."""

    def __init__(self, type_id: int, data: NDArray[np.uint8], rows: int, columns: int, repeats: int) -> None:
        super().__init__(type_id, data, rows, columns, repeats)
        self.amount = rows * columns * repeats


def _seconds_by_amount(work: Callable[[], object]) -> float:
    """Does the work; the time is what there is to do, not what a clock says."""
    work()
    return 1e-9 * getattr(getattr(work, "__self__", None), "amount", 1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_Products", _Counted)
    monkeypatch.setattr(kernels, "_cpu_seconds", _seconds_by_amount)
    monkeypatch.setattr(kernels, "STREAM_BYTES", 1 << 20)
    monkeypatch.setattr(kernels, "PREFILL_ROWS", 16)
    monkeypatch.setattr(kernels, "CACHE_ROWS", 16)


@pytest.mark.usefixtures("small")
def test_document() -> None:
    text, document = bench(("tcq3", "tcq3_64", "q3_k"), 2, with_models=False)
    document = json.loads(json.dumps(document))
    assert document["schema"] == "gguf-golf/bench"
    assert [row["type"] for row in document["types"]] == ["tcq3", "tcq3_64", "q3_k"]
    assert [row["bpw"] for row in document["types"]] == [3.125, 3.25, 3.4375]
    for row in document["types"]:
        for name in kernels.QUANTITIES:
            least, most = row["spread"][name]
            assert 0 < least <= row[name] <= most
    assert all(name in text for name in ("tcq3_64", "q3_k"))


@pytest.mark.usefixtures("small")
def test_unknown_type() -> None:
    with pytest.raises(InputError, match="tcq9 is not a type"):
        kernels.measure(["tcq9"], rounds=1, progress=False)


def test_unknown_model() -> None:
    with pytest.raises(InputError, match="9b is not a model"):
        models.measure(["9b"], [1])


@pytest.mark.parametrize("name", ["tcq2", "q4_k", "tcq3"])
def test_synthetic_model_is_a_readable_file(tmp_path: Path, name: str) -> None:
    shape = synthetic.Shape(576, 1536, 1, 9, 3, 64, tied=True)
    size = synthetic.write_model(tmp_path / "m.gguf", shape, name)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    matrices = [tensor for tensor in reader.tensors if len(tensor.shape) == 2]
    assert {tensor.name for tensor in matrices} == set(shape.matrices())
    assert sum(int(tensor.n_bytes) for tensor in matrices) == size
    for tensor in matrices:
        quant_type, _ = quant_types.type_for_row(name, int(tensor.shape[0]))
        assert tensor.tensor_type == quant_type.id
        if quant_type.name in quant_types.TCQ:
            assert np.isfinite(gguf.dequantize(tensor.data, tensor.tensor_type)).all()
