"""llama.cpp's products with TCQ matrices, few and many columns, odd sizes, experts, against NumPy's in float32."""

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
