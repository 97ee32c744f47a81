"""Encoding on a GPU: what it is given, and what it says where there is none. No test here has a GPU."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.encode import Guidance, Guide, cuda, feedback
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.encode.cuda import CudaEncoder
from gguf_golf.errors import BuildError, InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import open_model
from gguf_golf.quantize.assignment import uniform
from gguf_golf.quantize.stored import stored_tensors
from gguf_golf.quantize.writer import write
from gguf_golf.runtime import ggml, library


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

    def encode_with_feedback(device: int, type_id: int, rows: int, out: int, n: int, k: int, guidance: int) -> bool:
        assert device == 0
        jobs.append((type_id, n, k))
        library.libggml().quantize_tcq_feedback(type_id, rows, out, n, k, guidance)
        return True

    functions = {
        "ggml_backend_cuda_quantize_tcq": encode,
        "ggml_backend_cuda_quantize_tcq_feedback": encode_with_feedback,
    }
    monkeypatch.setattr(cuda, "_function", functions.__getitem__)
    return jobs


class FakeDeviceArray:
    """An array that says it is on a GPU."""

    def __init__(self, array: NDArray[Any]) -> None:
        address = array.ctypes.data
        strides = None if array.flags.c_contiguous else array.strides
        self._array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (address, False), "strides": strides, "version": 3
        }  # fmt: skip


PROOF = [(quant_types.get(name).id, 4, 512) for name in ("tcq3", "tcq3", "tcq3_64", "tcq3_64")]
"""The jobs of a new encoder: each packing, without and with error feedback."""


def test_needs_a_runtime_with_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library.libggml()
    monkeypatch.setattr(library, "folder", lambda: tmp_path)
    cuda._libcuda.cache_clear()
    with pytest.raises(BuildError, match="runtime build --cuda"):
        CudaEncoder()


def test_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_function", lambda _: lambda *_: False)
    with pytest.raises(BuildError, match="no NVIDIA GPU"):
        CudaEncoder()


@pytest.mark.parametrize("wrong", ["ggml_backend_cuda_quantize_tcq", "ggml_backend_cuda_quantize_tcq_feedback"])
def test_a_gpu_that_writes_other_bytes_is_refused(
    encoded: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def zeros(device: int, type_id: int, rows: int, out: int, n: int, k: int, guidance: int | None) -> bool:
        ctypes.memset(out, 0, n * quant_types.get(type_id).row_bytes(k))
        return True

    right = cuda._function
    monkeypatch.setattr(cuda, "_function", lambda name: zeros if name == wrong else right(name))
    with pytest.raises(BuildError, match="other bytes"):
        CudaEncoder()


def test_rows_and_guidance_arrive(encoded: list[tuple[int, int, int]]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 512)).astype(np.float32)
    importance = rng.gamma(1.0, 1.0, 512).astype(np.float32)
    factored = feedback.factor_hessian(np.diag(importance.astype(np.float64)), 256)
    tcq3, on_gpu, on_cpu = quant_types.get("tcq3"), CudaEncoder(), CpuEncoder()
    assert encoded == PROOF
    for guidance in (Guidance(), Guidance(importance), Guidance(importance, factored)):
        assert np.array_equal(on_gpu.encode(rows, tcq3, guidance), on_cpu.encode(rows, tcq3, guidance))
    assert encoded == [*PROOF, *[(tcq3.id, 3, 512)] * 3]
    with pytest.raises(InputError, match="512 columns"):
        on_gpu.encode(rows, tcq3, Guidance(importance[:256]))
    with pytest.raises(InputError, match="512 columns"):
        on_gpu.encode(rows[:, :256], tcq3, Guidance(feedback=factored))
    with pytest.raises(InputError, match="blocks of 256"):
        on_gpu.encode(rows[:, :300], tcq3)


def test_rows_may_be_on_the_gpu(encoded: list[tuple[int, int, int]]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 512)).astype(np.float32)
    importance = rng.gamma(1.0, 1.0, 512).astype(np.float32)
    factored = feedback.factor_hessian(np.diag(importance.astype(np.float64)), 64)
    tcq2, on_gpu, on_cpu = quant_types.get("tcq2_64"), CudaEncoder(), CpuEncoder()
    for guidance in (Guidance(), Guidance(importance), Guidance(importance, factored)):
        assert np.array_equal(on_gpu.encode(FakeDeviceArray(rows), tcq2, guidance), on_cpu.encode(rows, tcq2, guidance))
    for wrong in (rows[:, ::2], rows.astype(np.float64), rows[0]):
        with pytest.raises(InputError, match="contiguous f32 rows"):
            on_gpu.encode(FakeDeviceArray(wrong), tcq2)
    with pytest.raises(InputError, match="q6_k is encoded on the CPU"):
        on_gpu.encode(FakeDeviceArray(rows), quant_types.get("q6_k"))


def test_a_file_is_the_same(encoded: list[tuple[int, int, int]], tiny_dir: Path, tmp_path: Path) -> None:
    model = open_model(tiny_dir)
    chosen = uniform(model, "tcq2", "q6_k").types
    files = {}
    for encoder in (CpuEncoder(), CudaEncoder()):
        path = tmp_path / f"{type(encoder).__name__}.gguf"
        tensors = stored_tensors(model, chosen, Guide(), encoder)
        files[path] = write(tensors, path, metadata=model.metadata, made_from="", progress=False)
    on_cpu, on_gpu = (path.read_bytes() for path in files)
    assert on_cpu == on_gpu
    of_tcq = sum(tensor.n_rows for tensor in model.tensors if chosen[tensor.name] in quant_types.TCQ.values())
    assert of_tcq > 0
    assert sum(n for _, n, _ in encoded[len(PROOF) :]) == of_tcq
