#pragma once

// A file with TCQ tensors says which version of their format it holds: bytes of another version would decode to noise.

#include "../ggml/src/ggml-tcq.h"
#include "gguf.h"

#include <map>
#include <stdexcept>
#include <string>

// what a file says, -1 if it says nothing
static inline int64_t llama_read_tcq_format(const gguf_context * ctx) {
    const int64_t id = gguf_find_key(ctx, TCQ_FORMAT_KEY);
    return id >= 0 && gguf_get_kv_type(ctx, id) == GGUF_TYPE_UINT32 ? (int64_t) gguf_get_val_u32(ctx, id) : -1;
}

// throws if there are tensors of TCQ types in another format
static inline void llama_check_tcq_format(const gguf_context * ctx, const std::map<enum ggml_type, uint32_t> & n_type) {
    bool is_used = false;
    for (const auto & it : n_type) {
        is_used |= tcq_get_format(it.first) != NULL;
    }
    const int64_t version = is_used ? llama_read_tcq_format(ctx) : TCQ_FORMAT_VERSION;
    if (version < 0) {
        throw std::runtime_error("its TCQ tensors were written by an earlier, unreleased gguf-golf: convert the model again");
    }
    if (version != TCQ_FORMAT_VERSION) {
        throw std::runtime_error("its TCQ tensors are of format " + std::to_string(version) + ", this llama.cpp reads format " +
            std::to_string(TCQ_FORMAT_VERSION) + ": convert the model again");
    }
}

// before the first part of a file with a tensor of this type is written
static inline void llama_mark_tcq_format(gguf_context * ctx, enum ggml_type type) {
    if (tcq_get_format(type) != NULL) {
        gguf_set_val_u32(ctx, TCQ_FORMAT_KEY, TCQ_FORMAT_VERSION);
    }
}
