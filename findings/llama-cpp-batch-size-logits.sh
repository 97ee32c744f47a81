#!/usr/bin/env bash
# On a CPU, llama.cpp's logits differ in the second decimal place between small and large batches of the same text.
#
# With flash attention, which is on by default, batches of fewer than 64 tokens go through another kernel than larger
# ones. Even for a float32 model on one thread, 64, 128 or 256 tokens at a time agree bit for bit, and 1, 32 or 63 are
# up to 0.01 away (the logits' standard deviation is 1). The small batches are the inexact ones, because their kernel
# rounds queries and adds up values in 16 bits. With flash attention off and a float32 KV cache, all sizes agree to
# about 0.000002.
#
# Seen in: llama.cpp b11549 (the library in xllamacpp 2026.10.11549), declarations of llama-cpp-py-sync 0.11548.
# Most would expect: the batch size sets speed and memory; results agree to rounding of the last digits.
# Why it matters: perplexity and KL divergence measured with one batch size are not comparable in the last digits with
# those of another, and text generation, which decodes one token at a time, does not have the logits that were
# measured.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548 gguf==0.19.0 numpy==2.4.6
"$work/venv/bin/python" - "$work/random.gguf" <<'PY'
import sys

import gguf
import numpy as np
import xllamacpp
from llama_cpp_py_sync._cffi_bindings import ffi

PATH, WIDTH, VOCAB, TOKENS = sys.argv[1], 256, 64, 256
llama = ffi.dlopen(xllamacpp.xllamacpp.__file__)
quiet = ffi.callback("ggml_log_callback", lambda *_: None)
llama.llama_log_set(quiet, ffi.NULL)
random = np.random.default_rng(0)

out = gguf.GGUFWriter(PATH, "llama")
sizes = {"context_length": TOKENS, "embedding_length": WIDTH, "feed_forward_length": WIDTH, "vocab_size": VOCAB}
for key, size in (sizes | {"block_count": 1, "attention.head_count": 4}).items():
    out.add_uint32(f"llama.{key}", size)
out.add_layer_norm_rms_eps(1e-5)
out.add_tokenizer_model("no_vocab")
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    out.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
rows_of = {"token_embd": VOCAB, "output": VOCAB} | {f"blk.0.{part}": WIDTH for part in parts}
for name, rows in rows_of.items():
    out.add_tensor(f"{name}.weight", random.standard_normal((rows, WIDTH), np.float32) / WIDTH**0.5)
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
model = llama.llama_model_load_from_file(PATH.encode(), llama.llama_model_default_params())
text = random.integers(0, VOCAB, TOKENS).tolist()


def logits(size, **options):
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = TOKENS
    params.n_threads = params.n_threads_batch = 1
    for name, value in options.items():
        setattr(params, name, value)
    context, rows = llama.llama_init_from_model(model, params), []
    for start in range(0, TOKENS, size):
        ids = ffi.new("int32_t[]", text[start : start + size])
        batch = llama.llama_batch_get_one(ids, len(ids))
        batch.logits = wanted = ffi.new("int8_t[]", [1] * len(ids))
        assert llama.llama_decode(context, batch) == 0
        rows.append(ffi.unpack(llama.llama_get_logits(context), len(wanted) * VOCAB))
    llama.llama_free(context)
    return np.concatenate(rows)


exact = {"flash_attn_type": 0, "type_k": 0, "type_v": 0}  # off, float32
truth, apart = logits(TOKENS, **exact), {}
print("largest difference of a logit from: 256 at a time | exact | exact, when both are without flash attention")
for size in (1, 32, 63, 64, 128, 256):
    apart[size] = [np.abs(logits(size) - logits(TOKENS)).max(), np.abs(logits(size) - truth).max()]
    apart[size].append(np.abs(logits(size, **exact) - truth).max())
    print(f"tokens at a time: {size:3}", *(f"{difference:.6f}" for difference in apart[size]), sep="   ")
assert all(apart[size][0] > 1e-3 and apart[size][1] > 4 * apart[256][1] for size in (1, 32, 63)), "no longer so"
assert all(apart[size][0] == 0 for size in (64, 128, 256)) and all(a[2] < 1e-5 for a in apart.values()), "no longer so"
PY
