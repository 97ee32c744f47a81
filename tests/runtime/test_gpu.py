"""Encoding on a GPU: what it is given, and what it says where there is none. No test here has a GPU."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_golf.calibrate import feedback
from gguf_golf.errors import BuildError, InputError
from gguf_golf.formats import types
from gguf_golf.models import open_model
from gguf_golf.quantize.assignment import uniform
from gguf_golf.quantize.writer import write
from gguf_golf.runtime import ggml, gpu, library


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """A GPU that is the CPU in disguise; returns the type, rows and columns of each of its jobs."""
    jobs: list[tuple[int, int, int]] = []

    def encode(device: int, type_id: int, rows: int, out: int, n: int, k: int, importance: int | None) -> bool:
        assert device == 0
        jobs.append((type_id, n, k))

        def read(address: int, *shape: int) -> Any:
            count = int(np.prod(shape))
            return np.frombuffer(ctypes.string_at(address, 4 * count), np.float32).reshape(shape)

        data = ggml.quantize(type_id, read(rows, n, k), None if importance is None else read(importance, k))
        ctypes.memmove(out, data.ctypes.data, data.nbytes)
        return True

    def encode_with_feedback(device: int, type_id: int, rows: int, out: int, n: int, k: int, answer: int) -> bool:
        assert device == 0
        jobs.append((type_id, n, k))
        feedback._encoder()(type_id, rows, out, n, k, feedback._Feedback.from_address(answer))
        return True

    functions = {
        "ggml_backend_cuda_quantize_tcq": encode,
        "ggml_backend_cuda_quantize_tcq_feedback": encode_with_feedback,
    }
    monkeypatch.setattr(gpu, "_encoder", functions.__getitem__)
    return jobs


def test_needs_a_runtime_with_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library.libggml()
    monkeypatch.setattr(library, "folder", lambda: tmp_path)
    gpu._encoder.cache_clear()
    with pytest.raises(BuildError, match="runtime build --cuda"):
        gpu.check()


def test_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_encoder", lambda _: lambda *_: False)
    with pytest.raises(BuildError, match="no NVIDIA GPU"):
        gpu.check()


def test_a_gpu_that_errs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(device: int, type_id: int, rows: int, out: int, n: int, k: int, weights: int | None) -> bool:
        ctypes.memset(out, 0, n * types.get(type_id).row_bytes(k))
        return True

    monkeypatch.setattr(gpu, "_encoder", lambda _: encode)
    for check in (gpu.check, feedback.check_gpu):
        with pytest.raises(BuildError, match="other bytes"):
            check()


def test_feedback_arrives(encoded: list[tuple[int, int, int]]) -> None:
    feedback.check_gpu()
    assert encoded == [(types.get(name).id, 4, 512) for name in ("tcq3", "tcq3_64")]


def test_rows_and_importance_arrive(encoded: list[tuple[int, int, int]]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 512)).astype(np.float32)
    importance = rng.gamma(1.0, 1.0, 512).astype(np.float32)
    tcq3 = types.get("tcq3").id
    for weights in (None, importance):
        assert np.array_equal(gpu.quantize(tcq3, rows, weights), ggml.quantize(tcq3, rows, weights))
    assert encoded == [(tcq3, 3, 512)] * 2
    with pytest.raises(InputError, match="512 columns"):
        gpu.quantize(tcq3, rows, importance[:256])
    with pytest.raises(InputError, match="blocks of 256"):
        gpu.quantize(tcq3, rows[:, :300])


def test_a_file_is_the_same(encoded: list[tuple[int, int, int]], tiny_dir: Path, tmp_path: Path) -> None:
    model = open_model(tiny_dir)
    chosen = uniform(model, "tcq2", "q6_k").types
    on_cpu, on_gpu = tmp_path / "cpu.gguf", tmp_path / "gpu.gguf"
    write(model, chosen, on_cpu, progress=False)
    assert not encoded
    write(model, chosen, on_gpu, on_gpu=True, progress=False)
    assert on_gpu.read_bytes() == on_cpu.read_bytes()
    of_tcq = sum(tensor.n_rows for tensor in model.tensors if chosen[tensor.name] in types.TCQ.values())
    assert of_tcq > 0
    assert sum(n for _, n, _ in encoded[2:]) == of_tcq  # the first two jobs are the check
