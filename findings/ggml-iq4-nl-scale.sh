#!/usr/bin/env bash
# ggml's IQ4_NL encoder leaves 5 to 9 % of the error that it minimizes: the best scale of each block does better.
#
# A block of IQ4_NL is 32 weights, one float16 scale, and for each weight a 4-bit index of a fixed table. With the scale
# given, each weight's best index is its nearest value, so a block's optimum is found by trying float16 scales. ggml
# tries 15 scales and refines each. Below both minimize ggml's own error: squares, weighted by the imatrix times
# sqrt(sigma2 + x^2), with sigma2 twice the block's mean square (quantize_row_iq4_nl_impl in ggml-quants.c).
#
# Seen in: llama.cpp b11549 (the library in xllamacpp 2026.10.11549), gguf 0.19.0 to decode.
# Most would expect: with one scale per block and 4 bits per weight there is nothing left for a fuller search to find.
# Why it matters: a new format that is compared with ggml's files is compared with its encoder too. Part of what the
# format seems to gain can be had in the old one, at the same bytes and with the same decoder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 cffi==2.1.1
"$work/venv/bin/python" - <<'PY'
import numpy as np
import xllamacpp
from cffi import FFI
from gguf import GGMLQuantizationType as Type
from gguf import quants

ffi = FFI()
ffi.cdef(
    """
    size_t ggml_quantize_chunk(
        int type, const float * from, void * to, int64_t start, int64_t rows, int64_t columns, const float * imatrix
    );
    """
)
ggml = ffi.dlopen(xllamacpp.xllamacpp.__file__)
ROWS, COLUMNS, BLOCK, BYTES = 8, 1024, 32, 18
random = np.random.default_rng(0)
weights = random.standard_normal((ROWS, COLUMNS), np.float32)
x = weights.reshape(-1, BLOCK)
# The table is read off the decoder: scale 1, indices 0 to 15 in the low halves of the bytes.
header = np.array([1], np.float16).view(np.uint8)
probe = np.concatenate([header, np.arange(16, dtype=np.uint8)])[None]
TABLE = quants.dequantize(probe, Type.IQ4_NL)[0, :16]
SCALES = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)


def encoded(imatrix):
    blocks = np.zeros((ROWS, COLUMNS // BLOCK * BYTES), np.uint8)
    source, importance = ffi.from_buffer("float[]", weights), ffi.from_buffer("float[]", imatrix)
    ggml.ggml_quantize_chunk(Type.IQ4_NL, source, ffi.from_buffer(blocks), 0, ROWS, COLUMNS, importance)
    return quants.dequantize(blocks, Type.IQ4_NL).reshape(-1, BLOCK)


def least(block, importance):
    """The least error over every float16 scale, of both signs, near the block's largest magnitude."""
    natural = np.abs(block).max() / 127
    scales = SCALES[(SCALES > 0.6 * natural) & (SCALES < 2 * natural)]
    scales = np.concatenate([scales, -scales])[:, None]
    nearest = TABLE[np.searchsorted((TABLE[1:] + TABLE[:-1]) / 2, block / scales)] * scales
    return (importance * (nearest - block) ** 2).sum(1).min()


change = {}
imatrices = {"all ones": np.ones(COLUMNS, np.float32), "log-normal": random.lognormal(size=COLUMNS).astype(np.float32)}
for name, imatrix in imatrices.items():
    sigma2 = 2 * np.mean(x**2, axis=1, keepdims=True)
    importance = np.tile(imatrix, ROWS).reshape(-1, BLOCK) * np.sqrt(sigma2 + x**2)
    of_ggml = (importance * (encoded(imatrix) - x) ** 2).sum()
    best = sum(least(*pair) for pair in zip(x, importance, strict=True))
    change[name] = best / of_ggml - 1
    print(f"imatrix {name:10}   ggml {of_ggml:.2f}   best scale {best:.2f}   {change[name]:+.1%}")
assert all(-0.14 < c < -0.03 for c in change.values()), "no longer so"
PY
