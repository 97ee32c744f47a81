#!/usr/bin/env bash
# gguf-py has the wrong size for one type: a block of Q8_1 is 36 bytes in ggml, and 40 in gguf-py.
#
# GGML_QUANT_SIZES, the table by which gguf-py computes the shape, offset and size of every tensor, still counts Q8_1's
# two scales as 32 bits each; ggml stores 16 bits each. All other types agree. A file with a Q8_1 tensor that
# GGUFWriter writes and GGUFReader reads back without complaint is refused by ggml's own reader.
#
# Seen in: gguf 0.19.0; llama.cpp b11549 (the library in xllamacpp 2026.10.11549).
# Most would expect: the two implementations of one format, from one repository, to agree on its block sizes.
# Why it matters: whoever takes type sizes from gguf-py, for a writer, a size estimate or bits per weight, gets this
# one wrong.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gguf==0.19.0 xllamacpp==2026.10.11549 cffi==2.1.1 numpy==2.4.6
"$work/venv/bin/python" - "$work/tensors.gguf" <<'PY'
import sys

import gguf
import numpy as np
import xllamacpp
from cffi import FFI

ffi = FFI()
ffi.cdef(
    """
    size_t ggml_type_size(int type);
    int64_t ggml_blck_size(int type);
    struct gguf_init_params { bool no_alloc; void * context; };
    void * gguf_init_from_file(const char * path, struct gguf_init_params params);
    void ggml_log_set(void (*log)(int level, const char * text, void * data), void * data);
    """
)
ggml = ffi.dlopen(xllamacpp.xllamacpp.__file__)
said = []
log = ffi.callback("void(int, const char *, void *)", lambda level, text, data: said.append(ffi.string(text).decode()))
ggml.ggml_log_set(log, ffi.NULL)

differ = []
for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
    if (block, size) != (ggml.ggml_blck_size(kind), ggml.ggml_type_size(kind)):
        differ.append(kind.name)
        print(f"{kind.name}: gguf-py has {size} bytes for {block} values, ggml {ggml.ggml_type_size(kind)}")
print(f"the other {len(gguf.GGML_QUANT_SIZES) - len(differ)} types agree")
assert differ == ["Q8_1"], "no longer so"

for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q8_1):
    out = gguf.GGUFWriter(sys.argv[1], "llama")
    row = np.zeros((8, gguf.quant_shape_to_byte_shape((256,), kind)[0]), np.uint8)
    for name in ("a", "b"):
        out.add_tensor(name, row, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    shapes = [tensor.shape.tolist() for tensor in gguf.GGUFReader(sys.argv[1]).tensors]
    opened = ggml.gguf_init_from_file(sys.argv[1].encode(), (True, ffi.NULL)) != ffi.NULL
    print(f"two {kind.name} tensors: GGUFReader sees {shapes}, ggml {'opens' if opened else 'refuses'} them", *said[:1])
    assert opened == (kind.name == "Q8_0"), "no longer so"
PY
