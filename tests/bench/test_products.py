"""llama.cpp's products with TCQ matrices, few and many columns, odd sizes, experts, against NumPy's in float32."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.bench import graph
from gguf_golf.formats import quant_types, tcq
from gguf_golf.runtime.abi import InitParams

EIGHT_BIT_ACTIVATIONS = 0.025
"""Relative error that rounding the activations may leave in a handful of products; 0.016 is seen."""


@pytest.fixture
def context() -> Iterator[int]:
    created = graph.libcpu().ggml_init(InitParams(32 << 20, None, False))
    yield created
    graph.libcpu().ggml_free(created)


def random_matrix(fmt: tcq.TcqFormat, rows: int, row: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blocks of random bytes, and their weights (rows, row)."""
    blocks = np.random.default_rng(rows).integers(0, 256, (rows * row // fmt.block_size, fmt.type_size), np.uint8)
    blocks[:, fmt.scale_offset] = blocks[:, fmt.scale_offset] % 16 + 0xA0
    return blocks, tcq.dequantize(fmt, blocks).reshape(rows, row)


def fill(tensor: int, values: NDArray[np.generic]) -> None:
    graph.bytes_of(tensor, values.nbytes)[:] = np.ascontiguousarray(values).view(np.uint8).ravel()


def result(context: int, product: int, shape: tuple[int, ...], threads: int) -> NDArray[np.float32]:
    lib = graph.libcpu()
    nodes = lib.ggml_new_graph(context)
    lib.ggml_build_forward_expand(nodes, product)
    graph.compute(nodes, threads)
    return graph.bytes_of(product, 4 * int(np.prod(shape))).view(np.float32).reshape(shape)


def relative_error(got: NDArray[np.float32], want: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
@pytest.mark.parametrize(("rows", "blocks", "columns"), [(5, 3, 1), (16, 1, 4), (17, 2, 5), (70, 3, 33)])
def test_mul_mat(context: int, name: str, rows: int, blocks: int, columns: int) -> None:
    lib, fmt = graph.libcpu(), quant_types.TCQ_FORMATS[name]
    row = blocks * fmt.block_size
    data, weights = random_matrix(fmt, rows, row)
    x = np.random.default_rng(columns).standard_normal((columns, row), np.float32)
    matrix = lib.ggml_new_tensor_2d(context, quant_types.TCQ[name].id, row, rows)
    columns_tensor = lib.ggml_new_tensor_2d(context, graph.F32, row, columns)
    fill(matrix, data)
    fill(columns_tensor, x)
    got = result(context, lib.ggml_mul_mat(context, matrix, columns_tensor), (columns, rows), threads=1 + rows % 3)
    assert relative_error(got, x @ weights.T) < EIGHT_BIT_ACTIVATIONS


@pytest.mark.parametrize("name", ["tcq2", "tcq3", "tcq3_64", "tcq5_64"])
@pytest.mark.parametrize(("tokens", "shared"), [(1, True), (9, True), (40, False)])
def test_mul_mat_id(context: int, name: str, tokens: int, shared: bool) -> None:
    lib, fmt = graph.libcpu(), quant_types.TCQ_FORMATS[name]
    experts, used, rows, row = 5, 2, 19, 2 * fmt.block_size
    rng = np.random.default_rng(tokens)
    data, weights = random_matrix(fmt, experts * rows, row)
    ids = np.stack([rng.permutation(experts)[:used] for _ in range(tokens)]).astype(np.int32)
    x = rng.standard_normal((tokens, 1 if shared else used, row), np.float32)
    matrices = lib.ggml_new_tensor_3d(context, quant_types.TCQ[name].id, row, rows, experts)
    inputs = lib.ggml_new_tensor_3d(context, graph.F32, row, x.shape[1], tokens)
    chosen = lib.ggml_new_tensor_2d(context, graph.I32, used, tokens)
    for tensor, values in ((matrices, data), (inputs, x), (chosen, ids)):
        fill(tensor, values)
    product = lib.ggml_mul_mat_id(context, matrices, inputs, chosen)
    got = result(context, product, (tokens, used, rows), threads=2)
    want = np.einsum("turk,tuk->tur", weights.reshape(experts, rows, row)[ids], np.broadcast_to(x, (tokens, used, row)))
    assert relative_error(got, want) < EIGHT_BIT_ACTIVATIONS


@pytest.fixture
def repacked_buffers(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The type of buffers into which rows are repacked, with kernels that repack them."""
    lib = graph.libcpu()
    lib.ggml_backend_cpu_tcq_buffer_type.restype = ctypes.c_void_p
    monkeypatch.setenv("GGML_TCQ_KERNELS", "avx2")
    lib.ggml_tcq_cpu_init()
    buffers = lib.ggml_backend_cpu_tcq_buffer_type()
    if buffers:
        yield buffers
    monkeypatch.delenv("GGML_TCQ_KERNELS")
    lib.ggml_tcq_cpu_init()
    if not buffers:
        pytest.skip("no kernels of this CPU repack rows")


@pytest.fixture
def unallocated() -> Iterator[int]:
    created = graph.libcpu().ggml_init(InitParams(1 << 20, None, True))
    yield created
    graph.libcpu().ggml_free(created)


def fill_repacked(buffers: int, tensor: int, data: NDArray[np.uint8]) -> None:
    lib, pointer, size = graph.libcpu(), ctypes.c_void_p, ctypes.c_size_t
    lib.ggml_backend_buft_get_alloc_size.restype = size
    lib.ggml_backend_buft_alloc_buffer.restype = lib.ggml_backend_buffer_get_base.restype = pointer
    needed = lib.ggml_backend_buft_get_alloc_size(pointer(buffers), pointer(tensor))
    assert data.nbytes < needed < 1.25 * data.nbytes
    buffer = pointer(lib.ggml_backend_buft_alloc_buffer(pointer(buffers), size(needed)))
    lib.ggml_backend_tensor_alloc(buffer, pointer(tensor), pointer(lib.ggml_backend_buffer_get_base(buffer)))
    lib.ggml_backend_tensor_set(pointer(tensor), data.ctypes.data_as(pointer), size(0), size(data.nbytes))


def assert_same_products(got: NDArray[np.float32], want: NDArray[np.float32], many_columns: bool) -> None:
    """One column's blocks are added in another order, many columns' in the same."""
    if many_columns:
        np.testing.assert_array_equal(got, want)
    else:
        assert relative_error(got, want) < 1e-6


@pytest.mark.parametrize("name", ["tcq1", "tcq2", "tcq3", "tcq4", "tcq5"])
@pytest.mark.parametrize(("rows", "blocks", "columns"), [(8, 1, 1), (24, 3, 4), (24, 2, 5), (72, 3, 33)])
def test_mul_mat_of_repacked_rows(
    context: int, unallocated: int, repacked_buffers: int, name: str, rows: int, blocks: int, columns: int
) -> None:
    lib, quant_type = graph.libcpu(), quant_types.TCQ[name]
    data, _ = random_matrix(quant_types.TCQ_FORMATS[name], rows, 256 * blocks)
    x = lib.ggml_new_tensor_2d(context, graph.F32, 256 * blocks, columns)
    fill(x, np.random.default_rng(columns).standard_normal((columns, 256 * blocks), np.float32))
    stored, repacked = (lib.ggml_new_tensor_2d(c, quant_type.id, 256 * blocks, rows) for c in (context, unallocated))
    fill(stored, data)
    fill_repacked(repacked_buffers, repacked, data)
    want, got = (
        result(context, lib.ggml_mul_mat(context, matrix, x), (columns, rows), threads=2)
        for matrix in (stored, repacked)
    )
    assert_same_products(got, want, many_columns=columns >= 5)


@pytest.mark.parametrize("name", ["tcq2", "tcq5"])
@pytest.mark.parametrize("tokens", [1, 40])
def test_mul_mat_id_of_repacked_rows(
    context: int, unallocated: int, repacked_buffers: int, name: str, tokens: int
) -> None:
    lib, quant_type = graph.libcpu(), quant_types.TCQ[name]
    experts, used, rows, row = 5, 2, 24, 512
    rng = np.random.default_rng(tokens)
    data, _ = random_matrix(quant_types.TCQ_FORMATS[name], experts * rows, row)
    inputs = lib.ggml_new_tensor_3d(context, graph.F32, row, 1, tokens)
    chosen = lib.ggml_new_tensor_2d(context, graph.I32, used, tokens)
    fill(inputs, rng.standard_normal((tokens, 1, row), np.float32))
    fill(chosen, np.stack([rng.permutation(experts)[:used] for _ in range(tokens)]).astype(np.int32))
    stored, repacked = (lib.ggml_new_tensor_3d(c, quant_type.id, row, rows, experts) for c in (context, unallocated))
    fill(stored, data)
    fill_repacked(repacked_buffers, repacked, data)
    want, got = (
        result(context, lib.ggml_mul_mat_id(context, matrix, inputs, chosen), (tokens, used, rows), threads=2)
        for matrix in (stored, repacked)
    )
    assert_same_products(got, want, many_columns=tokens > 1)
