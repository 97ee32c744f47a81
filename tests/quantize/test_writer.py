"""Written files against gguf-py's reader, direct calls of the C quantizer, and interruptions."""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import Guide, shrunk
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.errors import DataError, InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, MetadataField, Model, open_model
from gguf_golf.quantize import stored
from gguf_golf.quantize.assignment import uniform
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
    model: Model,
    chosen: dict[str, QuantType],
    out: Path,
    imatrix: Imatrix | None = None,
    threads: int = 2,
    made_from: object = None,
) -> Written:
    guide = Guide(imatrix)
    tensors = stored_tensors(model, chosen, guide, CpuEncoder(threads))
    return write(tensors, out, metadata=model.metadata, made_from=made_from, force=True, progress=False)


def read(path: Path) -> dict[str, tuple[str, NDArray[np.uint8]]]:
    quant_types.register_with_gguf()
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
                shrunk.importance(imatrix, tensor.name)[e] if tensor.name in imatrix.entries else None,
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
def test_an_interrupted_run_resumes_and_ends_with_the_same_bytes(
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


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a conversion was interrupted after its first three tensors; whole.gguf is what it would have written."""
    model, out = make_model(), tmp_path / "m.gguf"
    calls = 0

    def fails_late(*args: object) -> NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return ORIGINAL(*args)

    write_model(model, uniform(model, "tcq3", "q6_k").types, tmp_path / "whole.gguf")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CpuEncoder, "encode", fails_late)
        write_model(model, uniform(model, "tcq3", "q6_k").types, out, made_from="a source")
    assert len((tmp_path / "m.gguf.journal").read_text().splitlines()) == 4  # the job and three tensors
    return out


def resume(out: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0, made_from: object = "a source") -> int:
    """Finish the conversion; returns how many slabs were encoded."""
    slabs: list[int] = []
    model = make_model(seed)
    with monkeypatch.context() as patch:
        patch.setattr(CpuEncoder, "encode", lambda *args: slabs.append(1) or ORIGINAL(*args))
        write_model(model, uniform(model, "tcq3", "q6_k").types, out, made_from=made_from)
    return len(slabs)


def test_what_was_made_from_another_source_is_not_continued(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resume(interrupted, monkeypatch, seed=1, made_from="another source") == 7
    model = make_model(seed=1)
    fresh = write_model(model, uniform(model, "tcq3", "q6_k").types, interrupted.with_name("fresh.gguf"))
    assert interrupted.read_bytes() == fresh.path.read_bytes()


def test_zeros_are_not_taken_for_a_finished_tensor(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the machine can leave a journal whose data never reached the disk."""
    partial = interrupted.with_name("m.gguf.partial")
    data, whole = bytearray(partial.read_bytes()), interrupted.with_name("whole.gguf").read_bytes()
    first = next(i for i in range(len(data) - 1, 0, -1) if data[i])  # the last byte of what is finished
    data[first - 100 : first + 1] = bytes(101)
    partial.write_bytes(data)
    assert resume(interrupted, monkeypatch) == 5
    assert interrupted.read_bytes() == whole


@pytest.mark.parametrize("damage", ["header", "size", "absent", "link"])
def test_a_partial_file_that_is_not_of_the_journal_is_made_again(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    partial = interrupted.with_name("m.gguf.partial")
    data = bytearray(partial.read_bytes())
    elsewhere = interrupted.with_name("elsewhere")
    if damage == "header":
        data[20] ^= 1
        partial.write_bytes(data)
    elif damage == "size":
        partial.write_bytes(data[:-1])
    else:
        partial.unlink()
    if damage == "link":
        elsewhere.write_bytes(data)
        partial.symlink_to(elsewhere)
    assert resume(interrupted, monkeypatch) == 7
    assert interrupted.read_bytes() == interrupted.with_name("whole.gguf").read_bytes()
    if damage == "link":
        assert elsewhere.read_bytes() == data, "written through a link"


def test_a_torn_line_of_the_journal_costs_one_tensor(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = interrupted.with_name("m.gguf.journal")
    journal.write_bytes(journal.read_bytes()[:-9])
    assert resume(interrupted, monkeypatch) == 5
    assert interrupted.read_bytes() == interrupted.with_name("whole.gguf").read_bytes()


def test_a_second_writer_of_one_file_is_refused_by_name(tmp_path: Path) -> None:
    model, out = make_model(), tmp_path / "m.gguf"
    with files.locked(out), ThreadPoolExecutor(1) as pool:  # as another process would hold it
        second = pool.submit(write_model, model, uniform(model, "tcq3", "q6_k").types, out)
        with pytest.raises(InputError, match=r"m\.gguf: another process is writing it"):
            second.result()
    assert not out.exists()


def test_a_full_disk_is_named_before_any_work_and_leaves_the_old_file(tmp_path: Path) -> None:
    out, model = tmp_path / "m.gguf", make_model()
    out.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the file takes more
        with pytest.raises(InputError, match=r"m\.gguf: cannot be written \(File too large\).*free some space"):
            write_model(model, uniform(model, "tcq3", "q6_k").types, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert out.read_bytes() == b"old"
    assert write_model(model, uniform(model, "tcq3", "q6_k").types, out).file_bytes == out.stat().st_size


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
    quant_type = quant_types.get("tcq2")

    def errors(weight: NDArray[np.float32] | None) -> tuple[float, float]:
        data = ggml.quantize(quant_type.id, rows, weight)
        wrong = (ggml.dequantize(quant_type.id, data, *rows.shape) - rows) ** 2
        return float(wrong[:, 1::2].sum()), float(wrong[:, ::2].sum())

    plain, weighted = errors(None), errors(importance)
    assert weighted[0] < 0.8 * plain[0]
    assert weighted[1] > plain[1]
