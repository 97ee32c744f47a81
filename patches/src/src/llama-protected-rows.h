#pragma once

// Protected rows: two tensors beside a matrix NAME give some of its rows back what quantization has taken from them.
//
//   NAME.rows      I32 [k]        the numbers of these rows, ascending
//   NAME.residual  any [n_in, k]  what is added to each of them
//
// Products and lookups add the residual by stock operations of ggml. A graph that uses the matrix in any other way is
// refused, as it would compute with the rows that were not restored.

#include "ggml.h"

#include <cstdint>
#include <unordered_map>
#include <vector>

struct llama_model_loader;
class llm_graph_result;

struct llama_protected_rows {
    struct entry {
        ggml_tensor * rows     = nullptr;
        ggml_tensor * residual = nullptr;

        std::vector<int32_t> numbers; // the content of rows
    };

    // creates the tensors beside every matrix that has been created and has protected rows in the file
    void create(llama_model_loader & ml);

    // once the tensors are loaded; throws if the row numbers are not ascending numbers of rows
    void read();

    // y = w*x with the residual of w's protected rows added
    ggml_tensor * add_to_product(ggml_context * ctx, const ggml_tensor * w, ggml_tensor * x, ggml_tensor * y) const;

    // cur = the rows of w that the ubatch's tokens have, with their residual added
    ggml_tensor * add_to_lookup(ggml_context * ctx, llm_graph_result * res, const ggml_tensor * w, ggml_tensor * cur) const;

    // throws if the graph uses a matrix without its residual
    void check(ggml_cgraph * gf) const;

private:
    std::unordered_map<const ggml_tensor *, entry> entries; // by matrix
};
