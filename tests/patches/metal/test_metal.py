"""TCQ's Metal kernels, compiled as C++ by clang and run on the CPU, against the NumPy decoder and float64 products."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.formats import quant_types, tcq
from gguf_golf.runtime import source
from tests.patches.blocks import any_blocks, small_blocks
from tests.patches.metal import msl

HERE = Path(__file__).parent
KERNELS = "ggml/src/ggml-metal/kernels"
SOURCES = tuple(
    f"ggml/src/{name}"
    for name in ("ggml-common.h", "ggml-tcq-layout.h", "ggml-tcq-tables.h", "ggml-metal/ggml-metal-impl.h")
)

Blocks = NDArray[np.uint8]


@pytest.fixture(scope="module")
def metal(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels of the patched llama.cpp as a library."""
    clang = shutil.which("clang++")
    if clang is None:
        pytest.skip("needs clang++ (Debian: apt install clang)")
    folder = tmp_path_factory.mktemp("metal")
    tree = source.source_dir()
    for path in [*(tree / KERNELS).iterdir(), *(tree / name for name in SOURCES)]:
        (folder / path.name).write_text(msl.to_cpp(path.read_text(encoding="utf-8")), encoding="utf-8")
    library = folder / "metal.so"
    command = [clang, "-std=c++17", "-O1", "-mf16c", "-w", "-fPIC", "-shared", "-o", str(library)]
    command += ["-Xclang", "-fallow-half-arguments-and-returns", "-include", str(HERE / "metal_stdlib")]
    command += [f"-I{HERE}", f"-I{folder}", str(HERE / "driver.cpp")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return ctypes.CDLL(str(library))


class Sizes(ctypes.Structure):
    """The driver's `sizes`: src0 (ne02, ne01, ne00), src1 (ne12, ne11, ne00), dst (ne12, ne11, ne01)."""

    _fields_ = [(name, ctypes.c_int32) for name in ("ne00", "ne01", "ne02", "ne11", "ne12")]


def call(function: Callable[..., int], name: str, *arguments: object) -> None:
    """Calls the driver with arrays as pointers."""
    given = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments]
    assert function(name.encode(), *given) == 0


def random_rows(
    name: str, rows: int, blocks_per_row: int, rng: np.random.Generator
) -> tuple[Blocks, NDArray[np.float32]]:
    """Random blocks as (rows, row bytes), and their weights (rows, row length)."""
    blocks = small_blocks(name, rows * blocks_per_row, rng)
    weights = tcq.dequantize(quant_types.TCQ_FORMATS[name], blocks)
    return blocks.reshape(rows, -1), weights.reshape(rows, -1)


@pytest.mark.parametrize("name", quant_types.TCQ)
def test_get_rows_is_bit_equal_to_numpy(metal: ctypes.CDLL, name: str) -> None:
    fmt = quant_types.TCQ_FORMATS[name]
    rng = np.random.default_rng(1)
    blocks = any_blocks(name, 120, rng).reshape(40, -1)  # every scale, too
    ids = rng.permutation(40).astype(np.int32)
    got = np.full((40, 3 * fmt.block_size), np.nan, np.float32)
    call(metal.tcq_get_rows, name, blocks, ids, got, got.shape[1], len(ids))
    want = tcq.dequantize(fmt, blocks.reshape(-1, fmt.type_size)).reshape(got.shape)[ids]
    assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize("name", quant_types.TCQ)
def test_golden_blocks(metal: ctypes.CDLL, name: str) -> None:
    golden = np.load(HERE.parents[1] / "golden" / f"{name}.npz")
    blocks, want = golden["blocks"], golden["weights"]
    got = np.full(want.shape, np.nan, np.float32)
    call(metal.tcq_get_rows, name, blocks, np.arange(len(blocks), dtype=np.int32), got, want.shape[1], len(blocks))
    assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize("name", quant_types.TCQ)
def test_copy_to_half(metal: ctypes.CDLL, name: str) -> None:
    blocks, weights = random_rows(name, 5, 2, np.random.default_rng(2))
    got = np.full(weights.shape, np.nan, np.float16)
    call(metal.tcq_copy_f16, name, blocks, got, weights.shape[1], len(weights))
    assert np.array_equal(got.view(np.uint16), weights.astype(np.float16).view(np.uint16))


SHAPES = [
    # rows, blocks a row, matrices, tokens, batches
    pytest.param(1, 1, 1, 1, 1, id="one of each"),
    pytest.param(7, 3, 1, 7, 1, id="rows that a simdgroup does not divide"),
    pytest.param(66, 2, 2, 33, 4, id="broadcast, tiles cut off"),
]


def product(weights: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float64]:
    """dst (ne12, ne11, ne01) of weights (ne02, ne01, ne00) and x (ne12, ne11, ne00), src0 broadcast over batches."""
    repeated = np.repeat(weights.astype(np.float64), len(x) // len(weights), axis=0)
    return x.astype(np.float64) @ repeated.transpose(0, 2, 1)


def relative_error(got: NDArray[np.float32], want: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """The error beside `sizes`, the sums of all terms' magnitudes: a sum of few terms may cancel."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(sizes))


@pytest.mark.parametrize(("rows", "n_blocks", "matrices", "tokens", "batches"), SHAPES)
@pytest.mark.parametrize("name", quant_types.TCQ)
@pytest.mark.parametrize(("kernel", "tolerance"), [("mul_mv", 1e-6), ("mul_mm", 2**-12)])  # mul_mm rounds to half
def test_products(
    metal: ctypes.CDLL, kernel: str, tolerance: float, name: str,
    rows: int, n_blocks: int, matrices: int, tokens: int, batches: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(3)
    blocks, flat = random_rows(name, matrices * rows, n_blocks, rng)
    weights = flat.reshape(matrices, rows, -1)
    x = rng.standard_normal((batches, tokens, weights.shape[2])).astype(np.float32)
    got = np.full((batches, tokens, rows), np.nan, np.float32)
    sizes = Sizes(weights.shape[2], rows, matrices, tokens, batches)
    call(metal[f"tcq_{kernel}"], name, blocks, x, got, sizes)
    assert relative_error(got, product(weights, x), product(np.abs(weights), np.abs(x))) < tolerance


@pytest.mark.parametrize("name", quant_types.TCQ)
@pytest.mark.parametrize(("kernel", "tolerance"), [("mul_mv_id", 1e-6), ("mul_mm_id", 1e-4)])
def test_products_of_experts(metal: ctypes.CDLL, kernel: str, tolerance: float, name: str) -> None:
    rng = np.random.default_rng(4)
    experts, rows, tokens, used = 3, 70, 40, 2
    blocks, flat = random_rows(name, experts * rows, 2, rng)
    weights = flat.reshape(experts, rows, -1)
    x = rng.standard_normal((tokens, used, weights.shape[2])).astype(np.float32)
    ids = np.array([rng.permutation(experts)[:used] for _ in range(tokens)], np.int32)
    got = np.full((tokens, used, rows), np.nan, np.float32)
    sizes = Sizes(weights.shape[2], rows, experts, used, tokens)
    call(metal[f"tcq_{kernel}"], name, blocks, x, ids, got, sizes)
    want, magnitudes = (
        np.einsum("tuk,turk->tur", f(x.astype(np.float64)), f(weights[ids].astype(np.float64)))
        for f in (np.array, np.abs)
    )
    assert relative_error(got, want, magnitudes) < tolerance
