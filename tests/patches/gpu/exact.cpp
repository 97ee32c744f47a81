// Does a GPU backend compute with TCQ what the C reference does? For every type, on the first GPU:
// - random blocks go through GET_ROWS and through to_float on the CPU, and the float32 results are compared as bits;
// - products with shapes for each of the GPU's kernels (one column, few, a tile, more than tiles are good for) are
//   compared with float64 products of the same weights, by upstream's measure: squared error over squared length.
//
// `exact N` leaves out products of more than N columns. Links ggml alone. Exit status 0: all as they should be; 1: some
// are not; 77: there is no GPU.

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

static std::mt19937 random_bits(1);

static std::vector<uint8_t> random_bytes(size_t n) {
    std::vector<uint8_t> data(n);
    for (uint8_t & byte : data) {
        byte = random_bits();
    }
    return data;
}

static ggml_context * new_context() {
    return ggml_init({ 16*ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, /*no_alloc =*/ true });
}

// computes node on the backend, if it can; inputs are set by the caller between allocation and computation
static bool compute(ggml_backend_t backend, ggml_context * ctx, ggml_tensor * node) {
    if (!ggml_backend_supports_op(backend, node)) {
        return false;
    }
    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, node);
    return ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS;
}

// weights that differ in a bit, of n; -1: not supported
static int64_t count_wrong_weights(ggml_backend_t backend, ggml_type type, int64_t * n) {
    const int64_t n_cols = 3*ggml_blck_size(type); // not a multiple of what any kernel takes at once
    const int64_t n_rows = 512;
    *n = n_rows*n_cols;

    ggml_context * ctx = new_context();
    ggml_tensor * blocks = ggml_new_tensor_2d(ctx, type, n_cols, n_rows);
    ggml_tensor * ids    = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_rows);
    ggml_tensor * rows   = ggml_get_rows(ctx, blocks, ids);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);

    const std::vector<uint8_t> data = random_bytes(ggml_nbytes(blocks));
    std::vector<int32_t> order(n_rows);
    for (int32_t i = 0; i < n_rows; ++i) {
        order[i] = n_rows - 1 - i;
    }
    ggml_backend_tensor_set(blocks, data.data(), 0, data.size());
    ggml_backend_tensor_set(ids, order.data(), 0, n_rows*sizeof(int32_t));

    int64_t wrong = -1;
    if (compute(backend, ctx, rows)) {
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
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    return wrong;
}

// squared error of a product over its squared length; -1: not supported
static double get_product_error(ggml_backend_t backend, ggml_type type, int64_t n_rows, int64_t k, int64_t n_columns,
                                ggml_type activation_type = GGML_TYPE_F32) {
    ggml_context * ctx = new_context();
    ggml_tensor * weights     = ggml_new_tensor_2d(ctx, type, k, n_rows);
    ggml_tensor * activations = ggml_new_tensor_2d(ctx, activation_type, k, n_columns);
    ggml_tensor * product     = ggml_mul_mat(ctx, weights, activations);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);

    std::vector<uint8_t> data = random_bytes(ggml_nbytes(weights));
    const size_t block_bytes = ggml_type_size(type);
    for (size_t i = block_bytes - 1; i < data.size(); i += block_bytes) {
        // the scale: one power of 2 and its mantissas, near 1/512, which half precision holds with sums
        data[i] = ggml_blck_size(type) == 256 ? 0xa0 | (data[i] & 0xf) : 0x90 | (data[i] & 7);
    }
    std::vector<float> x(k*n_columns);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (float & value : x) {
        value = uniform(random_bits);
    }
    ggml_backend_tensor_set(weights, data.data(), 0, data.size());
    if (activation_type == GGML_TYPE_F16) {
        std::vector<ggml_fp16_t> half(x.size());
        ggml_fp32_to_fp16_row(x.data(), half.data(), x.size());
        ggml_fp16_to_fp32_row(half.data(), x.data(), x.size());
        ggml_backend_tensor_set(activations, half.data(), 0, half.size()*sizeof(ggml_fp16_t));
    } else {
        ggml_backend_tensor_set(activations, x.data(), 0, x.size()*sizeof(float));
    }

    double error = -1.0;
    if (compute(backend, ctx, product)) {
        std::vector<float> got(n_rows*n_columns), row(k);
        ggml_backend_tensor_get(product, got.data(), 0, got.size()*sizeof(float));
        double error2 = 0.0;
        double length2 = 0.0;
        for (int64_t i = 0; i < n_rows; ++i) {
            ggml_get_type_traits(type)->to_float(data.data() + i*weights->nb[1], row.data(), k);
            for (int64_t j = 0; j < n_columns; ++j) {
                double want = 0.0;
                for (int64_t l = 0; l < k; ++l) {
                    want += (double) row[l]*x[j*k + l];
                }
                const double difference = got[j*n_rows + i] - want;
                error2  += difference*difference;
                length2 += want*want;
            }
        }
        error = error2/length2;
    }
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    return error;
}

int main(int argc, char ** argv) {
    const int64_t max_columns = argc > 1 ? std::atoi(argv[1]) : 512;

    ggml_backend_load_all();
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_GPU, nullptr);
    if (backend == nullptr) {
        printf("no GPU\n");
        return 77;
    }

    struct { int64_t n_rows, k, n_columns; } const shapes[] = {
        { 7, 256, 1 }, { 35, 3*256, 1 }, { 41, 16*256, 1 }, { 17, 20*256, 1 }, { 40, 33*256, 1 }, { 9, 56*256, 1 },
        { 33, 3*256, 5 }, { 33, 16*256, 8 }, { 65, 4*256, 33 }, { 65, 4*256, 200 }, { 256, 4*256, 512 },
    };
    bool ok = true;
    for (int t = 0; t < GGML_TYPE_COUNT; ++t) {
        const ggml_type type = (ggml_type) t;
        const char * name = ggml_type_name(type);
        if (name == nullptr || std::string(name).rfind("tcq", 0) != 0) {
            continue;
        }
        int64_t n_weights;
        const int64_t wrong = count_wrong_weights(backend, type, &n_weights);
        printf("%-8s %lld of %lld weights differ; products", name, (long long) wrong, (long long) n_weights);
        ok = ok && wrong == 0;

        for (const auto & shape : shapes) {
            if (shape.n_columns > max_columns) {
                continue;
            }
            const double error = get_product_error(backend, type, shape.n_rows, shape.k, shape.n_columns);
            printf(" %.0e", error);
            ok = ok && error >= 0.0 && error < 5e-4;
        }
        // half precision is not supported everywhere
        const double error = get_product_error(backend, type, 35, 3*256, 1, GGML_TYPE_F16);
        ok = ok && error < 5e-4;
        printf(error < 0.0 ? "\n" : "; of half precision %.0e\n", error);
    }
    ggml_backend_free(backend);
    return ok ? 0 : 1;
}
