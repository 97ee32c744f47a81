// Calls TCQ's CUDA kernels, compiled for the CPU, as llama.cpp does. Functions return 0, or 1 for a type that is not TCQ.

#include "tcq.cu"
#include "tcq-mmvq.cuh"

#define __CUDACC__
#include "tcq-encode.h"

#include "../ggml_stand_ins.h"

// more of ggml.c
extern "C" {
const char * ggml_type_name(ggml_type) {
    return "";
}

int64_t ggml_blck_size(ggml_type type) {
    return type >= GGML_TYPE_TCQ1_64 ? QK_TCQ_64 : QK_TCQ;
}
}

template <ggml_type type>
static void multiply(
        const void * x, const float * y, float * dst, const int32_t * ids, const ggml_cuda_mm_fusion_args_device & fusion,
        int ncols, int nrows, int n_matrices, int n_columns, int n_products) {
    const int row_blocks = ncols/ggml_cuda_type_traits<type>::qk;
    const int padded     = (ncols + 511)/512*512;
    const int y_blocks   = padded/QK8_1;

    std::vector<block_q8_1> q((size_t) n_columns*y_blocks);
    tcq_quantize_row_q8_cuda(y, q.data(), type, ncols, ncols, ncols*n_columns, ncols*n_columns, padded, n_columns, 1, 1, nullptr);

    // as ggml_cuda_mul_mat_vec_q: products are channels; with ids each chooses a matrix, without they share them evenly
    const uint3 columns = ids ? init_fastdiv_values(n_columns) : uint3 { 0, 0, 0 };
    const uint3 ratio   = ids ? uint3 { 0, 0, 0 }              : init_fastdiv_values(n_products/n_matrices);
    tcq_mul_mat_vec_cuda<type>(
        x, q.data(), ids, fusion, dst, ncols, nrows, columns, n_products, 1,
        row_blocks, ratio, row_blocks*nrows, y_blocks, nrows, init_fastdiv_values(1), 0, 0, 0, nullptr);
}

extern "C" int emulated_multiply(
        int type, const void * x, const void * gate, const float * y, const float * bias, const float * gate_bias,
        const int32_t * ids, int glu_op, float * dst, int ncols, int nrows, int n_matrices, int n_columns, int n_products) {
    ggml_cuda_mm_fusion_args_device fusion;
    fusion.x_bias    = bias;
    fusion.gate      = gate;
    fusion.gate_bias = gate_bias;
    fusion.glu_op    = (ggml_glu_op) glu_op;
    fusion.glu_limit = 1.0f;
    switch (type) {
#define TCQ_CASE(name, NAME, qk) case GGML_TYPE_##NAME:                                                     \
        multiply<GGML_TYPE_##NAME>(x, y, dst, ids, fusion, ncols, nrows, n_matrices, n_columns, n_products); \
        return 0;
        TCQ_FOR_EACH_TYPE(TCQ_CASE)
#undef TCQ_CASE
        default: return 1;
    }
}

extern "C" int emulated_dequantize(int type, const void * x, float * y, int64_t n) {
    const auto dequantize = tcq_get_to_t_cuda<float>((ggml_type) type);
    if (!dequantize) {
        return 1;
    }
    dequantize(x, y, n, nullptr);
    return 0;
}

extern "C" int emulated_get_rows(int type, const void * x, const int32_t * ids, float * y, int64_t ncols, int64_t row_bytes, int64_t n) {
    tcq_get_rows_cuda(x, (ggml_type) type, ids, y, ncols, row_bytes, row_bytes, row_bytes, n, 1, 1,
                      sizeof(int32_t), sizeof(int32_t)*n, sizeof(int32_t)*n, sizeof(float)*ncols, sizeof(float)*ncols*n, sizeof(float)*ncols*n, nullptr);
    return 0;
}

static tcq_device::tcq_encoder * new_encoder(const tcq_format * f) {
    static tcq_encoder_tables    tables;
    static tcq_device::tcq_encoder     e;
    tcq_get_encoder_tables(f, &tables);
    e.t = &tables;
    return &e;
}

extern "C" int emulated_encode(
        int type, const float * x, const float * importance, uint8_t * dst, int64_t n_blocks, int64_t row_blocks, int reversed) {
    const tcq_format * f = tcq_get_format((ggml_type) type);
    if (!f) {
        return 1;
    }
    tcq_device::tcq_encoder * e = new_encoder(f);
    emulated_reversed = reversed;
    emulate(1, TCQ_ENCODE_THREADS, [&] {
        for (int64_t ib = 0; ib < n_blocks; ++ib) {
            tcq_device::tcq_write_block(e, x + ib*f->block_size, importance + ib%row_blocks*f->block_size, dst + ib*f->type_size);
        }
    });
    emulated_reversed = false;
    return 0;
}

extern "C" int emulated_encode_with_feedback(
        int type, const float * src, const float * block_weights, const float * section_weights, const float * propagation,
        uint8_t * dst, int64_t nrows, int64_t n_per_row, int section, int look_ahead, int reversed) {
    const tcq_format * f = tcq_get_format((ggml_type) type);
    if (!f) {
        return 1;
    }
    tcq_device::tcq_encoder * e = new_encoder(f);
    const tcq_feedback feedback = { block_weights, section_weights, propagation, section, look_ahead };
    std::vector<float> x(n_per_row);
    emulated_reversed = reversed;
    emulate(1, TCQ_ENCODE_THREADS, [&] {
        for (int64_t row = 0; row < nrows; ++row) {
            tcq_device::tcq_encode_row(e, src + row*n_per_row, x.data(), n_per_row, &feedback, dst + row*(n_per_row/f->block_size)*f->type_size);
        }
    });
    emulated_reversed = false;
    return 0;
}
