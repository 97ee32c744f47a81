"""TCQ's CUDA kernels, compiled as C++ and run on the CPU, against the NumPy decoder and float64 products.

Decoding with one column, with gates, biases and experts; dequantization; get_rows. The product of many columns (MMQ)
needs tensor cores: on a GPU, `tests/patches/gpu/exact.cpp` and test-backend-ops compare it.
"""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.encode import feedback
from gguf_golf.formats import quant_types, tcq
from gguf_golf.runtime import ggml, source
from tests.patches.blocks import any_blocks, small_blocks
from tests.patches.cuda import cuda

HERE = Path(__file__).parent
SOURCES = ("tcq.cu", "tcq.cuh", "tcq-mmvq.cuh", "tcq-encode.h")
GEGLU, SWIGLU, OAI, CLAMP = 1, 2, 3, 6  # of ggml_glu_op

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels of the patched llama.cpp as a library."""
    compiler = shutil.which("c++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C++ compiler, and coroutines of Linux's C library (ucontext)")
    folder = tmp_path_factory.mktemp("cuda")
    tree = source.source_dir() / "ggml"
    for name in SOURCES:
        text = (tree / "src" / "ggml-cuda" / name).read_text(encoding="utf-8")
        (folder / name).write_text(cuda.to_cpp(text), encoding="utf-8")
    include = [f"-I{path}" for path in (folder, HERE / "shim", tree / "src", tree / "include")]
    objects = []
    for part in ("", "-encode", "-trellis"):
        objects.append(folder / f"tcq{part}.o")
        command = ["cc", "-std=gnu11", "-O2", "-ffp-contract=off", "-fPIC", "-c", *include, "-o", objects[-1]]
        subprocess.run([*command, tree / "src" / f"ggml-tcq{part}.c"], check=True)
    library = folder / "cuda.so"
    command = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-w", "-fPIC", "-shared", *include, "-o", library]
    result = subprocess.run([*command, HERE / "driver.cpp", *objects], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[:4000]
    return ctypes.CDLL(str(library))


def pointer(array: NDArray[np.generic] | None) -> ctypes.c_void_p | None:
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def golden_and_random(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The golden blocks and some of random bits, scales included."""
    fmt = quant_types.TCQ_FORMATS[name]
    golden = np.load(Path(__file__).parents[2] / "golden" / f"{name}.npz")["blocks"]
    return np.concatenate([golden.reshape(-1, fmt.type_size), any_blocks(name, 96, rng)])


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
def test_decoding_is_exact(kernels: ctypes.CDLL, name: str) -> None:
    blocks = golden_and_random(name, np.random.default_rng(0))
    n, size = len(blocks), quant_types.TCQ_FORMATS[name].block_size
    expected = tcq.dequantize(quant_types.TCQ_FORMATS[name], blocks)

    found = np.full((n, size), np.nan, np.float32)
    assert (
        kernels.emulated_dequantize(quant_types.get(name).id, pointer(blocks), pointer(found), ctypes.c_int64(n * size))
        == 0
    )
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))

    ids = np.random.default_rng(1).permutation(n).astype(np.int32)
    rows = np.full((n, size), np.nan, np.float32)
    arguments = [ctypes.c_int64(value) for value in (size, blocks.shape[1], n)]
    kernels.emulated_get_rows(quant_types.get(name).id, pointer(blocks), pointer(ids), pointer(rows), *arguments)
    assert np.array_equal(rows.view(np.uint32), expected[ids].view(np.uint32))


def rounded(y: Floats, size: int) -> NDArray[np.float64]:
    """Activations as the kernels see them: int8 with one scale for each block of weights."""
    blocks = y.reshape(-1, size)
    d = (np.abs(blocks).max(1, keepdims=True) / np.float32(127)).astype(np.float32)
    scaled = np.divide(blocks, d, out=np.zeros_like(blocks), where=d > 0)
    return (np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(float) * d).reshape(y.shape)


def glu(op: int, gate: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    """ggml's gates, with a limit of 1 for the clamped one."""
    if op == GEGLU:
        return 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
    if op == OAI:
        gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
        return gate / (1 + np.exp(-1.702 * gate)) * (1 + up)
    if op == CLAMP:
        gate, up = np.minimum(gate, 1), np.clip(up, -1, 1)
    return gate / (1 + np.exp(-gate)) * up


def check_product(
    kernels: ctypes.CDLL,
    name: str,
    rows: int,
    row_blocks: int,
    *,
    gate_op: int = 0,
    bias: bool = False,
    matrices: int = 1,
    ids: list[int] | None = None,
    columns: int = 1,
) -> None:
    """One call of the kernel against float64: the product of each column, or of each id with its column."""
    rng = np.random.default_rng(rows)
    fmt = quant_types.TCQ_FORMATS[name]
    k = row_blocks * fmt.block_size
    products = columns if ids is None else len(ids)
    y = rng.standard_normal((columns, k)).astype(np.float32)
    chosen = np.array(ids, np.int32) if ids is not None else None
    of = chosen if chosen is not None else np.arange(products) // (products // matrices)
    n_bias = matrices if ids is not None else products
    of_bias = of if ids is not None else np.arange(products)

    def side(present: bool) -> tuple[NDArray[np.uint8] | None, Floats | None, NDArray[np.float64]]:
        if not present:
            return None, None, np.zeros((products, rows))
        blocks = small_blocks(name, matrices * rows * row_blocks, rng)
        weights = tcq.dequantize(fmt, blocks).reshape(matrices, rows, k).astype(float)
        offset = rng.standard_normal((n_bias, rows)).astype(np.float32) if bias else None
        column = rounded(y, fmt.block_size)[np.arange(products) % columns]
        product = np.einsum("prk,pk->pr", weights[of], column)
        padding = any_blocks(name, 512 // fmt.block_size, rng)  # as llama.cpp pads its buffers; must not count
        blocks = np.concatenate([blocks.reshape(-1, fmt.type_size), padding])
        return blocks, offset, product if offset is None else product + offset[of_bias]

    x, x_bias, up = side(True)
    gate, gate_bias, gated = side(gate_op > 0)
    expected = glu(gate_op, gated, up) if gate_op else up

    found = np.full((products, rows), np.nan, np.float32)
    pointers = [pointer(array) for array in (x, gate, y, x_bias, gate_bias, chosen)]
    sizes = (k, rows, matrices, columns, products)
    assert kernels.emulated_multiply(quant_types.get(name).id, *pointers, gate_op, pointer(found), *sizes) == 0
    error = np.square(found - expected).sum() / np.square(expected).sum()
    assert error < 1e-10, (name, rows, row_blocks, error)


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
def test_products(kernels: ctypes.CDLL, name: str) -> None:
    """Rows that fill no thread block, row lengths that fill no warp or several, few rows and many."""
    for rows, row_blocks in ((1, 1), (7, 3), (10, 8), (5, 19), (2051, 1)):
        check_product(kernels, name, rows, row_blocks)


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
def test_gates_and_biases(kernels: ctypes.CDLL, name: str) -> None:
    for gate_op in (SWIGLU, GEGLU, OAI, CLAMP):
        check_product(kernels, name, 6, 3, gate_op=gate_op, bias=gate_op != GEGLU)
    check_product(kernels, name, 9, 5, bias=True)
    check_product(kernels, name, 2052, 1, gate_op=SWIGLU)


@pytest.mark.parametrize("name", ["tcq1", "tcq3", "tcq4", "tcq2_64", "tcq5_64"])
def test_experts_and_channels(kernels: ctypes.CDLL, name: str) -> None:
    check_product(kernels, name, 5, 2, matrices=4, ids=[2, 0, 3], columns=3)
    check_product(kernels, name, 5, 2, matrices=4, ids=[1, 3], columns=1, bias=True, gate_op=SWIGLU)
    check_product(kernels, name, 6, 3, matrices=2, columns=4, bias=True)


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
@pytest.mark.parametrize("reversed_order", [False, True])
def test_encoding(kernels: ctypes.CDLL, name: str, reversed_order: bool) -> None:
    """The CPU encoder's bytes, whichever of a thread block's 128 threads comes first at any place."""
    size = quant_types.TCQ_FORMATS[name].block_size
    rng = np.random.default_rng(3)
    rows = rng.standard_t(3, (2, 2 * size)).astype(np.float32)
    rows[1, :size] = 0
    importance = rng.gamma(0.3, 1.0, 2 * size).astype(np.float32)
    expected = ggml.quantize(quant_types.get(name).id, rows, importance)
    found = np.full_like(expected, 0xFF)
    sizes = (ctypes.c_int64(4), ctypes.c_int64(2), int(reversed_order))
    assert (
        kernels.emulated_encode(quant_types.get(name).id, pointer(rows), pointer(importance), pointer(found), *sizes)
        == 0
    )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
def test_encoding_with_feedback(kernels: ctypes.CDLL, name: str) -> None:
    """Likewise with a Hessian of correlated columns, and a block of zeros that gets errors from the one before."""
    size = quant_types.TCQ_FORMATS[name].block_size
    k = 3 * size
    rng = np.random.default_rng(4)
    rows = rng.standard_t(3, (2, k)).astype(np.float32)
    rows[1, :size] = 0
    x = rng.standard_normal((400, k)) @ rng.standard_normal((k, k)) / k**0.5
    answer = feedback.factor_hessian(x.T @ x / len(x), size)
    expected = feedback.encode(quant_types.get(name), rows, answer)
    tables = [pointer(table) for table in (answer.block_weights, answer.section_weights, answer.propagation)]
    for reversed_order in (False, True):
        found = np.full_like(expected, 0xFF)
        sizes = (ctypes.c_int64(2), ctypes.c_int64(k), feedback.SECTION, feedback.LOOK_AHEAD, int(reversed_order))
        arguments = (pointer(rows), *tables, pointer(found), *sizes)
        assert kernels.emulated_encode_with_feedback(quant_types.get(name).id, *arguments) == 0
        assert np.array_equal(found, expected)
