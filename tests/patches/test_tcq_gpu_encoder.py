"""The GPU's encoder, compiled as C++ for the CPU: the bytes of the CPU's encoder, on rows of every kind.

`tests/patches/gpu/encode.cpp` compares; a GPU is not needed, and what one computes is docs/kernels-gpu.md's to say.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_golf.formats import quant_types
from gguf_golf.runtime import source

HERE = Path(__file__).parent


def rows_of_every_kind(rng: np.random.Generator, k: int) -> list[NDArray[np.float64]]:
    """Matrices (4, k): outliers, a narrow Gaussian, scales from tiny to huge, and mostly zeros with rows of none."""
    sparse = np.where(rng.random((4, k)) < 0.03, rng.standard_normal((4, k)) * 20, 0)
    sparse[0] = 0
    sparse[1] = 0
    sparse[1, 5] = 3
    scales = 10.0 ** rng.integers(-8, 4, (4, 1))
    return [rng.standard_t(3, (4, k)), rng.standard_normal((4, k)) * 0.02, rng.laplace(size=(4, k)) * scales, sparse]


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_bytes_of_the_cpus_encoder(tmp_path: Path) -> None:
    tree = source.source_dir() / "ggml"
    include = [f"-I{tree / part}" for part in ("include", "src")]
    objects = []
    for part in ("", "-encode", "-feedback", "-trellis"):
        objects.append(tmp_path / f"tcq{part}.o")
        compile_c = ["cc", "-c", "-std=gnu11", "-O2", "-ffp-contract=off", *include, "-o", objects[-1]]
        subprocess.run([*compile_c, tree / "src" / f"ggml-tcq{part}.c"], check=True)
    program = tmp_path / "encode"
    compile_cpp = ["c++", "-std=c++17", "-O2", "-ffp-contract=off", *include, "-o", program]
    subprocess.run([*compile_cpp, HERE / "gpu" / "encode.cpp", *objects, "-lm"], check=True)

    rng = np.random.default_rng(0)
    parts: list[bytes] = []
    n_cases = 0
    for name, fmt in quant_types.TCQ_FORMATS.items():
        for rows in rows_of_every_kind(rng, 3 * fmt.block_size):
            parts.append(np.array([quant_types.get(name).id, *rows.shape], np.int32).tobytes())
            parts.append(rows.astype(np.float32).tobytes())
            parts.append(rng.gamma(0.3, 1.0, rows.shape[1]).astype(np.float32).tobytes())
            n_cases += 2  # without importance and with it
    done = subprocess.run([program], input=b"".join(parts), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == n_cases
