#pragma once

// Where tokenizers' Metaspace puts a space before a text. llama.cpp's own rule, before every stretch of text between
// special tokens, is that of sentencepiece and of a Prepend normalizer; a file that says nothing keeps it.

#include "gguf.h"

#include <string>

enum llama_space_prefix {
    LLAMA_SPACE_PREFIX_ALWAYS,
    LLAMA_SPACE_PREFIX_MISSING, // not before a stretch that begins with a space: prepend_scheme "always"
    LLAMA_SPACE_PREFIX_FIRST,   // moreover only at the beginning of the text: prepend_scheme "first"
};

static inline llama_space_prefix llama_read_space_prefix(const gguf_context * ctx) {
    const int64_t id = gguf_find_key(ctx, "tokenizer.ggml.space_prefix_scheme");
    if (id < 0 || gguf_get_kv_type(ctx, id) != GGUF_TYPE_STRING) {
        return LLAMA_SPACE_PREFIX_ALWAYS;
    }
    const std::string scheme = gguf_get_val_str(ctx, id);
    return scheme == "missing" ? LLAMA_SPACE_PREFIX_MISSING :
           scheme == "first"   ? LLAMA_SPACE_PREFIX_FIRST   : LLAMA_SPACE_PREFIX_ALWAYS;
}

// whether a space goes before the stretch of `text` that begins at `offset`
static inline bool llama_has_space_prefix(llama_space_prefix scheme, const std::string & text, size_t offset) {
    if (scheme == LLAMA_SPACE_PREFIX_ALWAYS) {
        return true;
    }
    if (scheme == LLAMA_SPACE_PREFIX_FIRST && offset != 0) {
        return false;
    }
    return text.compare(offset, 1, " ") != 0 && text.compare(offset, 3, "\xe2\x96\x81") != 0;
}
