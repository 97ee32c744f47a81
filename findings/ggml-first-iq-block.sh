#!/usr/bin/env bash
# In each new process, ggml's first block of IQ1_S, IQ2_XXS, IQ2_XS or IQ2_S costs seconds of CPU time.
#
# To quantize to these types, ggml needs tables of each codebook's nearest neighbours. It does not ship them: it
# compares all other points of a grid with every codeword and sorts. The time grows with the codebook: 1 second for
# IQ2_XXS, 2 for IQ2_XS, 4 for IQ2_S, 8 for IQ1_S. It is spent inside the first ggml_quantize_chunk; nothing is logged,
# or kept for the next process. Later blocks take about 0.0002 seconds or less.
#
# Seen in: llama.cpp b11549 (the library in xllamacpp 2026.10.11549), on an x86-64 server.
# Most would expect: a call on one block of 256 weights takes well under a millisecond, the first one too.
# Why it matters: a test, a benchmark of the encoders, or a tool that starts a process for each tensor measures mostly
# the tables.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 numpy==2.4.6 cffi==2.1.1
"$work/venv/bin/python" - <<'PY'
import time

import numpy as np
import xllamacpp
from cffi import FFI

ffi = FFI()
ffi.cdef(
    """
    size_t ggml_quantize_chunk(
        int type, const float * from, void * to, int64_t start, int64_t rows, int64_t columns, const float * imatrix
    );
    """
)
ggml = ffi.dlopen(xllamacpp.xllamacpp.__file__)
BLOCK = 256
weights = ffi.from_buffer("float[]", np.random.default_rng(0).standard_normal(BLOCK, np.float32))
ones = ffi.from_buffer("float[]", np.ones(BLOCK, np.float32))


def cost(kind):
    """CPU seconds to quantize one block."""
    start = time.process_time()
    ggml.ggml_quantize_chunk(kind, weights, ffi.new("uint8_t[]", BLOCK), 0, 1, BLOCK, ones)
    return time.process_time() - start


KINDS = {"Q2_K": 10, "IQ4_XS": 23, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ2_S": 22, "IQ1_S": 19}
ratio = {}
print("CPU time of one block of 256 weights")
for name, kind in KINDS.items():
    first, second = cost(kind), min(cost(kind) for _ in range(9))
    ratio[name] = first / second
    print(f"{name:7}   the first {first:9.6f} s   a later one {second:.6f} s")
slow = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S")
assert all(ratio[name] > 1000 for name in slow), "no longer so"
assert all(ratio[name] < 300 for name in ("Q2_K", "IQ4_XS")), "no longer so"
PY
