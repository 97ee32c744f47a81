// Does a GPU backend decode TCQ bit for bit like the C reference? Random blocks of every type go through GET_ROWS on
// the first GPU and through to_float on the CPU, and the float32 results are compared as bits.
//
// Links ggml alone. Exit status 0: all equal; 1: some differ; 77: there is no GPU.

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"

#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

int main() {
    ggml_backend_load_all();
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_GPU, nullptr);
    if (backend == nullptr) {
        printf("no GPU\n");
        return 77;
    }

    std::mt19937 random(1);
    bool ok = true;
    for (int t = 0; t < GGML_TYPE_COUNT; ++t) {
        const ggml_type type = (ggml_type) t;
        const char * name = ggml_type_name(type);
        if (name == nullptr || std::string(name).rfind("tcq", 0) != 0) {
            continue;
        }
        const int64_t n_cols = 3*ggml_blck_size(type); // not a multiple of what any kernel takes at once
        const int64_t n_rows = 512;

        ggml_context * ctx = ggml_init({ 16*ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, /*no_alloc =*/ true });
        ggml_tensor * blocks = ggml_new_tensor_2d(ctx, type, n_cols, n_rows);
        ggml_tensor * ids    = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_rows);
        ggml_tensor * rows   = ggml_get_rows(ctx, blocks, ids);
        ggml_cgraph * graph  = ggml_new_graph(ctx);
        ggml_build_forward_expand(graph, rows);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);

        std::vector<uint8_t> data(ggml_nbytes(blocks));
        for (uint8_t & byte : data) {
            byte = random();
        }
        std::vector<int32_t> order(n_rows);
        for (int32_t i = 0; i < n_rows; ++i) {
            order[i] = n_rows - 1 - i;
        }
        ggml_backend_tensor_set(blocks, data.data(), 0, data.size());
        ggml_backend_tensor_set(ids, order.data(), 0, n_rows*sizeof(int32_t));

        const bool supported = ggml_backend_supports_op(backend, rows);
        int64_t wrong = -1;
        if (supported && ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS) {
            std::vector<float> got(n_rows*n_cols), want(n_cols);
            ggml_backend_tensor_get(rows, got.data(), 0, got.size()*sizeof(float));
            wrong = 0;
            for (int64_t i = 0; i < n_rows; ++i) {
                ggml_get_type_traits(type)->to_float(data.data() + order[i]*blocks->nb[1], want.data(), n_cols);
                for (int64_t j = 0; j < n_cols; ++j) {
                    wrong += std::memcmp(&got[i*n_cols + j], &want[j], sizeof(float)) != 0;
                }
            }
        }
        printf("%-8s %s: %lld of %lld weights differ\n", name, supported ? "supported" : "NOT SUPPORTED",
               (long long) wrong, (long long) (n_rows*n_cols));
        ok = ok && wrong == 0;

        ggml_backend_buffer_free(buffer);
        ggml_free(ctx);
    }
    ggml_backend_free(backend);
    return ok ? 0 : 1;
}
