// The TCQ encoder on CUDA: a thread block encodes one block of weights at a time, with error feedback one row.

#include "common.cuh"
#include "ggml-tcq.h"
#include "tcq-encode.h"

#include <algorithm>
#include <memory>

#define TCQ_ENCODE_SLAB (1 << 26) // weights on the device at a time

static __device__ void tcq_init_encoder(tcq_device::tcq_encoder * e, const tcq_encoder_tables * tables) {
    if (threadIdx.x == 0) {
        e->t = tables;
    }
    __syncthreads();
}

static __global__ void __launch_bounds__(TCQ_ENCODE_THREADS) tcq_encode_blocks(
        const tcq_encoder_tables * tables, const float * x, const float * importance, uint8_t * dst,
        const int64_t n_blocks, const int64_t row_blocks) {
    __shared__ tcq_device::tcq_encoder e;
    tcq_init_encoder(&e, tables);

    const int block_size = tables->block_size;
    const int type_size  = tables->type_size;
    for (int64_t ib = blockIdx.x; ib < n_blocks; ib += gridDim.x) {
        const float * w = importance ? importance + ib%row_blocks*block_size : nullptr;
        tcq_device::tcq_write_block(&e, x + ib*block_size, w, dst + ib*type_size);
    }
}

static __global__ void __launch_bounds__(TCQ_ENCODE_THREADS) tcq_encode_rows_with_feedback(
        const tcq_encoder_tables * tables, const float * src, const tcq_feedback feedback, uint8_t * dst,
        const int64_t nrows, const int64_t n_per_row, const int64_t row_size, float * x) {
    __shared__ tcq_device::tcq_encoder e;
    tcq_init_encoder(&e, tables);

    for (int64_t row = blockIdx.x; row < nrows; row += gridDim.x) {
        float * scratch = x + blockIdx.x*n_per_row;
        tcq_device::tcq_encode_row(&e, src + row*n_per_row, scratch, n_per_row, &feedback, dst + row*row_size);
    }
}

template <typename T>
struct tcq_device_array {
    T * data = nullptr;

    explicit tcq_device_array(size_t n)     { CUDA_CHECK(cudaMalloc(&data, n*sizeof(T))); }
    ~tcq_device_array()                     { CUDA_CHECK(cudaFree(data)); }
    tcq_device_array(const tcq_device_array &) = delete;
    // memory of the host or of a device
    void set(const T * from, size_t n)      { CUDA_CHECK(cudaMemcpy(data, from, n*sizeof(T), cudaMemcpyDefault)); }
    void get(T * to, size_t n)              { CUDA_CHECK(cudaMemcpy(to, data, n*sizeof(T), cudaMemcpyDefault)); }
};

// what both encoders need on a device: tables, and how many thread blocks it can run at once
struct tcq_device_encoder {
    const tcq_format *                   f;
    int                                  n_grid;
    tcq_device_array<tcq_encoder_tables> tables;

    template <typename... P>
    tcq_device_encoder(int device, const tcq_format * f, void (*kernel)(P...)) :
            f(f), n_grid(get_n_grid(device, kernel)), tables(1) {
        const auto host = std::make_unique<tcq_encoder_tables>();
        tcq_get_encoder_tables(f, host.get());
        tables.set(host.get(), 1);
    }

    template <typename... P>
    static int get_n_grid(int device, void (*kernel)(P...)) {
        ggml_cuda_set_device(device);
        int n = 0;
        CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, kernel, TCQ_ENCODE_THREADS, 0));
        return n*ggml_cuda_info().devices[device].nsm;
    }
};

static const tcq_format * tcq_get_encodable_format(int device, enum ggml_type type, int64_t n_per_row) {
    const tcq_format * f = device >= 0 && device < ggml_cuda_info().device_count ? tcq_get_format(type) : nullptr;
    GGML_ASSERT(!f || n_per_row % f->block_size == 0);
    return f;
}

// calls encode(rows of src on the device, the same rows of dst, how many) for slabs of rows
template <typename F>
static void tcq_encode_slabs(
        const tcq_format * f, const float * src, void * dst, int64_t nrows, int64_t n_per_row, F encode) {
    const int64_t row_size  = n_per_row/f->block_size*f->type_size;
    const int64_t slab_rows = std::min(nrows, std::max((int64_t) 1, TCQ_ENCODE_SLAB/n_per_row));
    tcq_device_array<float>   d_src(slab_rows*n_per_row);
    tcq_device_array<uint8_t> d_dst(slab_rows*row_size);
    for (int64_t row = 0; row < nrows; row += slab_rows) {
        const int64_t n = std::min(slab_rows, nrows - row);
        d_src.set(src + row*n_per_row, n*n_per_row);
        encode(d_src.data, d_dst.data, n);
        CUDA_CHECK(cudaGetLastError());
        d_dst.get((uint8_t *) dst + row*row_size, n*row_size);
    }
}

// Rows [nrows, n_per_row], with the arguments and the bytes of quantize_tcq; importance [n_per_row] or NULL. All of them may
// be in host memory or on a device. False, with nothing done, if there is no such type or no such device.
extern "C" GGML_BACKEND_API bool ggml_backend_cuda_quantize_tcq(
        int device, enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row,
        const float * importance) {
    const tcq_format * f = tcq_get_encodable_format(device, type, n_per_row);
    if (!f) {
        return false;
    }
    const tcq_device_encoder encoder(device, f, tcq_encode_blocks);
    tcq_device_array<float>  d_importance(n_per_row);
    if (importance) {
        d_importance.set(importance, n_per_row);
    }
    const int64_t row_blocks = n_per_row/f->block_size;
    tcq_encode_slabs(f, src, dst, nrows, n_per_row, [&](const float * x, uint8_t * blocks, int64_t n) {
        tcq_encode_blocks<<<std::min((int64_t) encoder.n_grid, n*row_blocks), TCQ_ENCODE_THREADS>>>(
            encoder.tables.data, x, importance ? d_importance.data : nullptr, blocks, n*row_blocks, row_blocks);
    });
    return true;
}

// the same with error feedback: quantize_tcq_feedback
extern "C" GGML_BACKEND_API bool ggml_backend_cuda_quantize_tcq_feedback(
        int device, enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row,
        const tcq_feedback * feedback) {
    const tcq_format * f = tcq_get_encodable_format(device, type, n_per_row);
    if (!f) {
        return false;
    }
    const tcq_device_encoder encoder(device, f, tcq_encode_rows_with_feedback);

    const int64_t n_section_weights = n_per_row/feedback->section*(feedback->section + feedback->look_ahead);
    tcq_device_array<float> d_block_weights(n_per_row);
    tcq_device_array<float> d_section_weights(n_section_weights);
    tcq_device_array<float> d_propagation(n_per_row*n_per_row);
    tcq_device_array<float> d_x(encoder.n_grid*n_per_row);
    d_block_weights  .set(feedback->block_weights,   n_per_row);
    d_section_weights.set(feedback->section_weights, n_section_weights);
    d_propagation    .set(feedback->propagation,     n_per_row*n_per_row);

    const tcq_feedback on_device = {
        d_block_weights.data, d_section_weights.data, d_propagation.data, feedback->section, feedback->look_ahead,
    };
    const int64_t row_size = n_per_row/f->block_size*f->type_size;
    tcq_encode_slabs(f, src, dst, nrows, n_per_row, [&](const float * x, uint8_t * blocks, int64_t n) {
        tcq_encode_rows_with_feedback<<<std::min((int64_t) encoder.n_grid, n), TCQ_ENCODE_THREADS>>>(
            encoder.tables.data, x, on_device, blocks, n, n_per_row, row_size, d_x.data);
    });
    return true;
}
