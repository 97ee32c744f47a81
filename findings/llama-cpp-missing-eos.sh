#!/usr/bin/env bash
# A GGUF with a byte-level vocabulary and no EOS ends its answers at token 11 in llama.cpp: in GPT-2's order a comma.
#
# The key tokenizer.ggml.eos_token_id is optional. Without it, llama.cpp takes the hard-coded 11, as EOS and as BOS,
# for any vocabulary of type "gpt2", although the file declares that token an ordinary one. Byte-level vocabularies
# usually begin with the printable ASCII characters, and there 11 is ",".
#
# Seen in: llama.cpp b11549 (the library in xllamacpp 2026.10.11549), declarations of llama-cpp-py-sync 0.11548.
# Most would expect: no EOS in the file means no EOS (the API has LLAMA_TOKEN_NULL for it).
# Why it matters: answers of such a model break off at the first comma, and look like short but complete answers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548 gguf==0.19.0
"$work/venv/bin/python" - "$work/vocabulary.gguf" <<'PY'
import sys

import gguf
import xllamacpp
from llama_cpp_py_sync._cffi_bindings import ffi

llama = ffi.dlopen(xllamacpp.xllamacpp.__file__)
quiet = ffi.callback("ggml_log_callback", lambda *_: None)
llama.llama_log_set(quiet, ffi.NULL)

printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that GPT-2 writes as themselves
vocab = [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(256 - len(printable))] + ["<|endoftext|>"]
kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL]


def special_tokens(eos):
    out = gguf.GGUFWriter(sys.argv[1], "gpt2")
    for key in ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"):
        out.add_uint32(f"gpt2.{key}", 1)
    out.add_layer_norm_eps(1e-5)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(vocab)
    out.add_token_types(kinds)
    out.add_token_merges(["a b"])
    if eos is not None:
        out.add_eos_token_id(eos)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    params = llama.llama_model_default_params()
    params.vocab_only = True
    words = llama.llama_model_get_vocab(llama.llama_model_load_from_file(sys.argv[1].encode(), params))
    ends = [vocab[i] for i in range(len(vocab)) if llama.llama_vocab_is_eog(words, i)]
    return vocab[llama.llama_vocab_bos(words)], vocab[llama.llama_vocab_eos(words)], ends


seen = {eos: special_tokens(eos) for eos in (None, 256)}
for eos, (bos, end, ends) in seen.items():
    print(f"eos_token_id {eos if eos is not None else 'absent'}: BOS {bos!r}, EOS {end!r}, generation ends at {ends}")
assert seen[None][:2] == (",", ",") and "," in seen[None][2] and "," not in seen[256][2], "no longer so"
PY
