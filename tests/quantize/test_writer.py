"""Written files against gguf-py's reader, direct calls of the C quantizer, and interruptions."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import Guide
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.models import LazyTensor, MetadataField, Model, open_model
from gguf_golf.quantize import stored, writer
from gguf_golf.quantize.assignment import uniform
from gguf_golf.quantize.job import resume_key
from gguf_golf.quantize.stored import stored_tensors
from gguf_golf.quantize.writer import Written, write
from gguf_golf.runtime import ggml

ORIGINAL = CpuEncoder.encode


def make_model(seed: int = 0, poison: str | None = None) -> Model:
    """Two layers, three experts, a norm: every kind of tensor that the writer tells apart."""
    rng = np.random.default_rng(seed)
    shapes = {
        "token_embd.weight": (40, 256),
        "blk.0.attn_q.weight": (96, 256),
        "blk.0.attn_norm.weight": (256,),
        "blk.0.ffn_down.weight": (64, 576),
        "blk.0.ffn_up_exps.weight": (3, 8, 256),
    }
    tensors = []
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32) * 0.02
        if name == poison:
            values.reshape(-1)[5] = np.nan
        flat = values.reshape(-1, shape[-1])
        tensors.append(LazyTensor(name, shape, "F32", lambda first, last, flat=flat: flat[first:last].copy()))
    return Model("llama", [MetadataField("general.architecture", "llama", gguf.GGUFValueType.STRING)], tensors)


def make_imatrix(model: Model) -> Imatrix:
    rng = np.random.default_rng(9)
    entries = {
        t.name: ImatrixEntry(
            rng.gamma(0.5, 1.0, (t.shape[0] if len(t.shape) == 3 else 1, t.shape[-1])), np.array([1], np.int64)
        )
        for t in model.tensors
        if t.name.startswith("blk.0.") and len(t.shape) > 1
    }
    return Imatrix(entries)


def write_model(
    model: Model, chosen: dict[str, QuantType], out: Path, imatrix: Imatrix | None = None, threads: int = 2
) -> Written:
    guide = Guide(imatrix)
    tensors = stored_tensors(model, chosen, guide, CpuEncoder(threads))
    return write(tensors, out, metadata=model.metadata, key=resume_key(model, guide), progress=False)


def read(path: Path) -> dict[str, tuple[str, NDArray[np.uint8]]]:
    types.register_with_gguf()
    return {
        t.name: (t.tensor_type.name.lower(), np.array(t.data).view(np.uint8).reshape(-1))
        for t in gguf.GGUFReader(path).tensors
    }


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stored, "SLAB_WEIGHTS", 4096)
    yield


@pytest.mark.usefixtures("small_slabs")
def test_every_tensor_holds_what_the_quantizer_makes_of_it(tmp_path: Path) -> None:
    model = make_model()
    imatrix = make_imatrix(model)
    chosen = uniform(model, "tcq3", "q6_k").types
    done = write_model(model, chosen, tmp_path / "m.gguf", imatrix=imatrix)
    assert (tmp_path / "m.gguf").stat().st_size == done.file_bytes
    found = read(tmp_path / "m.gguf")
    assert {name: kind for name, (kind, _) in found.items()} == {
        "token_embd.weight": "q6_k",
        "blk.0.attn_q.weight": "tcq3",
        "blk.0.attn_norm.weight": "f32",
        "blk.0.ffn_down.weight": "tcq3_64",
        "blk.0.ffn_up_exps.weight": "tcq3",
    }
    for tensor in model.tensors:
        values = tensor.load()
        experts = values if values.ndim == 3 else values.reshape(1, -1, values.shape[-1])
        expected = [
            ggml.quantize(
                chosen[tensor.name].id,
                expert,
                imatrix.importance(tensor.name)[e] if tensor.name in imatrix.entries else None,
            ).reshape(-1)
            for e, expert in enumerate(experts)
        ]
        assert np.array_equal(found[tensor.name][1], np.concatenate(expected)), tensor.name


def test_same_bytes_for_any_thread_count(tmp_path: Path) -> None:
    model = make_model()
    chosen = uniform(model, "tcq2", "q4_k").types
    for threads in (1, 2, 5):
        write_model(model, chosen, tmp_path / f"{threads}.gguf", threads=threads)
    assert len({(tmp_path / f"{threads}.gguf").read_bytes() for threads in (1, 2, 5)}) == 1


@pytest.mark.usefixtures("small_slabs")
@pytest.mark.parametrize("calls_before_the_power_fails", [0, 1, 3, 6])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before_the_power_fails: int
) -> None:
    model = make_model()
    chosen = uniform(model, "tcq4", "q6_k").types
    whole = write_model(model, chosen, tmp_path / "whole.gguf").path.read_bytes()
    out = tmp_path / "m.gguf"
    out.write_bytes(b"an older file that must survive")
    calls = 0

    def failing(*args: object) -> NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        if calls > calls_before_the_power_fails:
            raise KeyboardInterrupt
        return ORIGINAL(*args)

    with monkeypatch.context() as patch:
        patch.setattr(CpuEncoder, "encode", failing)
        with pytest.raises(KeyboardInterrupt):
            write_model(model, chosen, out)
    assert out.read_bytes() == b"an older file that must survive"

    made: list[int] = []
    monkeypatch.setattr(CpuEncoder, "encode", lambda *args: made.append(1) or ORIGINAL(*args))
    write_model(model, chosen, out)
    assert out.read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.gguf", "whole.gguf"]
    # of 23 slabs the embedding has the first 3, attn_q the next 6: only whole tensors are kept
    assert len(made) == (23 if calls_before_the_power_fails < 3 else 20)


def test_a_partial_file_of_another_job_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "m.gguf"
    chosen = uniform(make_model(), "tcq3", "q6_k").types
    calls = 0

    def fails_late(*args: object) -> NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return ORIGINAL(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CpuEncoder, "encode", fails_late)
        write_model(make_model(seed=1), chosen, out)
    write_model(make_model(seed=0), chosen, out)
    fresh = write_model(make_model(seed=0), chosen, tmp_path / "fresh.gguf")
    assert out.read_bytes() == fresh.path.read_bytes()


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "m.gguf"
    out.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._PartialFile, "write", full)
    model = make_model()
    with pytest.raises(InputError, match="No space left on device"):
        write_model(model, uniform(model, "tcq3", "q6_k").types, out)
    assert out.read_bytes() == b"old"


def test_nan_weights_are_named(tmp_path: Path) -> None:
    model = make_model(poison="blk.0.attn_q.weight")
    with pytest.raises(DataError, match=r"blk\.0\.attn_q\.weight"):
        write_model(model, uniform(model, "tcq3", "q6_k").types, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_types_that_need_an_imatrix_say_how_to_get_one(tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(InputError, match="gguf-golf imatrix"):
        write_model(model, uniform(model, "iq2_xs", "q6_k").types, tmp_path / "m.gguf")
    with pytest.raises(InputError, match=r"nothing about token_embd\.weight: collect it on this model"):
        write_model(model, uniform(model, "q4_k", "iq2_xs").types, tmp_path / "m.gguf", make_imatrix(model))


def test_an_imatrix_of_another_model_is_refused(tmp_path: Path) -> None:
    model = make_model()
    imatrix = make_imatrix(model)
    imatrix.entries["blk.0.attn_q.weight"] = ImatrixEntry(np.ones((1, 128)), np.array([1], np.int64))
    with pytest.raises(InputError, match="another model"):
        write_model(model, uniform(model, "tcq3", "q6_k").types, tmp_path / "m.gguf", imatrix=imatrix)


def test_importance_moves_the_error_to_where_it_does_not_matter(tmp_path: Path, tiny_dir: Path) -> None:
    tensor = open_model(tiny_dir).tensor("blk.1.ffn_up.weight")
    rows = tensor.load()
    importance = np.where(np.arange(rows.shape[1]) % 2, 100.0, 1.0).astype(np.float32)
    quant_type = types.get("tcq2")

    def errors(weight: NDArray[np.float32] | None) -> tuple[float, float]:
        data = ggml.quantize(quant_type.id, rows, weight)
        wrong = (ggml.dequantize(quant_type.id, data, *rows.shape) - rows) ** 2
        return float(wrong[:, 1::2].sum()), float(wrong[:, ::2].sum())

    plain, weighted = errors(None), errors(importance)
    assert weighted[0] < 0.8 * plain[0]
    assert weighted[1] > plain[1]
