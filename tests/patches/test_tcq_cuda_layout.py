"""Where the CUDA kernels look for lo bits, against the format: the one table of theirs that is not generated."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gguf_golf.formats import tcq, types
from gguf_golf.runtime import source

PROGRAM = """
#include <cstdio>
#include <initializer_list>
#define __host__
#define __device__
#define QK_TCQ 256
#define QK_TCQ_64 64
{function}
int main() {{
    for (int block_size : {{ QK_TCQ, QK_TCQ_64 }}) for (int rate = 2; rate <= 5; ++rate)
        for (int k = 0; k < 8; ++k) for (int b = 0; b < rate - 1; ++b) {{
            const tcq_lo_bit at = tcq_get_lo_bit(block_size, rate, k, b);
            printf("%d %d %d %d %d %d\\n", block_size, rate, k, b, at.plane, at.bit);
        }}
}}
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_lo_bits(tmp_path: Path) -> None:
    header = (source.source_dir() / "ggml" / "src" / "ggml-cuda" / "tcq.cuh").read_text()
    function = re.search(r"^struct tcq_lo_bit .*?^}\n", header, re.DOTALL | re.MULTILINE)
    assert function is not None
    (tmp_path / "main.cpp").write_text(PROGRAM.format(function=function.group()))
    subprocess.run(["c++", "-std=c++17", tmp_path / "main.cpp", "-o", tmp_path / "main"], check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    found = np.array([line.split() for line in done.stdout.splitlines()], int)

    n_compared = 0
    for fmt in types.TCQ_FORMATS.values():
        if fmt.rate == 1:
            continue
        n = fmt.block_size // 8  # bytes of a plane
        positions = tcq.lo_bit_positions(fmt)
        for _, _, k, b, plane, bit in found[(found[:, 0] == fmt.block_size) & (found[:, 1] == fmt.rate)]:
            of_bytes = np.arange(n)
            assert np.array_equal(positions[n * k + of_bytes, b], 8 * (n * plane + of_bytes) + bit)
            n_compared += 1
    assert n_compared == 2 * 8 * (1 + 2 + 3 + 4)
