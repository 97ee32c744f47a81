#!/usr/bin/env bash
# llama.cpp's "tekken" and "gpt-4o" pre-tokenizers cut words that the models' own regex keeps whole.
#
# The regex of these models distinguishes upper-case from lower-case letters by Unicode category and lets words contain
# combining marks. llama.cpp approximates both: only a-z count as lower case and only A-Z as upper case, and a
# combining mark is no letter. So a capital outside A-Z ends a word in capitals ("ÉCOLE" is cut behind "É"), and words
# of Hindi and other scripts that write vowels as marks fall apart at each mark.
#
# Seen in: llama.cpp b11549 (the library in xllamacpp 2026.10.11549), declarations of llama-cpp-py-sync 0.11548.
# Most would expect: the tokens that the tokenizers library gives for the same vocabulary, merges and regex.
# Why it matters: models get tokens they never met in training, and more of them, in languages other than English, and
# nothing says so; a perplexity of such a text is not comparable with that of another program.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548 gguf==0.19.0 tokenizers==0.23.3
"$work/venv/bin/python" - "$work/vocabulary.gguf" <<'PY'
import json
import sys

import gguf
import xllamacpp
from llama_cpp_py_sync._cffi_bindings import ffi
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

llama = ffi.dlopen(xllamacpp.xllamacpp.__file__)
quiet = ffi.callback("ggml_log_callback", lambda *_: None)
llama.llama_log_set(quiet, ffi.NULL)

UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
FRONT = r"[^\r\n\p{L}\p{N}]?"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
WORDS = [f"{FRONT}{UPPER}*{LOWER}+", f"{FRONT}{UPPER}+{LOWER}*"]
REGEXES = {  # as in the models' tokenizer.json
    "tekken": "|".join([*WORDS, r"\p{N}", REST]),
    "gpt-4o": "|".join([*(word + SUFFIX for word in WORDS), r"\p{N}{1,3}", REST]),
}
TEXTS = ["école", "Москва", "МОСКВА", "ÉCOLE", "NAÏVE", "हिन्दी"]


def trained(regex):
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(regex), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=byte_level.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def vocabulary(tokenizer, pre):
    model = json.loads(tokenizer.to_str())["model"]
    out = gguf.GGUFWriter(sys.argv[1], "llama")
    for key in ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"):
        out.add_uint32(f"llama.{key}", 1)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(sorted(model["vocab"], key=model["vocab"].get))
    out.add_token_types([gguf.TokenType.NORMAL] * len(model["vocab"]))
    out.add_token_merges([" ".join(pair) for pair in model["merges"]])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    params = llama.llama_model_default_params()
    params.vocab_only = True
    return llama.llama_model_get_vocab(llama.llama_model_load_from_file(sys.argv[1].encode(), params))


for pre, regex in REGEXES.items():
    tokenizer = trained(regex)
    vocab, ids = vocabulary(tokenizer, pre), ffi.new("int32_t[100]")
    for text in TEXTS:
        n = llama.llama_tokenize(vocab, text.encode(), len(text.encode()), ids, len(ids), False, False)
        own = tokenizer.encode(text).ids
        print(f"{pre}: {text}: {len(own)} token with tokenizers, {n} with llama.cpp")
        assert len(own) == 1 and (n == 1) == (text in TEXTS[:3]), "no longer so"
PY
