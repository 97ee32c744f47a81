// The TCQ encoder on CUDA: one thread block for one block of weights at a time.

#include "common.cuh"
#include "ggml-tcq.h"
#include "tcq-encode.h"

#include <algorithm>
#include <memory>

#define TCQ_ENCODE_CHUNK (1 << 26) // weights on the device at a time

static __global__ void __launch_bounds__(TCQ_ENCODE_THREADS) tcq_encode_blocks(
        const tcq_encoder_tables * tables, const float * x, const float * importance, uint8_t * dst,
        const int64_t n_blocks, const int64_t row_blocks, uint16_t (*rows)[TCQ_STATES]) {
    __shared__ tcq_block_encoder e;
    if (threadIdx.x == 0) {
        e.t    = tables;
        e.rows = rows + (int64_t) blockIdx.x*TCQ_COST_ROWS;
    }
    __syncthreads();

    const int block_size = tables->block_size;
    const int type_size  = tables->type_size;
    for (int64_t ib = blockIdx.x; ib < n_blocks; ib += gridDim.x) {
        tcq_encode_one(&e, x + ib*block_size, importance ? importance + ib%row_blocks*block_size : nullptr, dst + ib*type_size);
    }
}

template <typename T>
struct tcq_device_array {
    T * data = nullptr;

    explicit tcq_device_array(size_t n)     { CUDA_CHECK(cudaMalloc(&data, n*sizeof(T))); }
    ~tcq_device_array()                     { CUDA_CHECK(cudaFree(data)); }
    tcq_device_array(const tcq_device_array &) = delete;
    void set(const T * from, size_t n)      { CUDA_CHECK(cudaMemcpy(data, from, n*sizeof(T), cudaMemcpyHostToDevice)); }
    void get(T * to, size_t n)              { CUDA_CHECK(cudaMemcpy(to, data, n*sizeof(T), cudaMemcpyDeviceToHost)); }
};

// Rows [nrows, n_per_row] of a TCQ type in host memory, as quantize_tcq's and with its bytes; importance [n_per_row] or
// NULL. False, with nothing done, where there is no such type or no such device.
extern "C" GGML_BACKEND_API bool ggml_backend_cuda_quantize_tcq(
        int device, enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row, const float * importance) {
    const tcq_format * f = tcq_get_format(type);
    if (!f || device < 0 || device >= ggml_cuda_info().device_count) {
        return false;
    }
    GGML_ASSERT(n_per_row % f->block_size == 0);
    ggml_cuda_set_device(device);

    int per_multiprocessor = 0;
    CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, tcq_encode_blocks, TCQ_ENCODE_THREADS, 0));
    const int n_grid = per_multiprocessor*ggml_cuda_info().devices[device].nsm;

    const int64_t row_blocks = n_per_row/f->block_size;
    const int64_t chunk_rows = std::min(nrows, std::max((int64_t) 1, TCQ_ENCODE_CHUNK/n_per_row));

    const auto tables = std::make_unique<tcq_encoder_tables>();
    tcq_get_encoder_tables(f, tables.get());

    tcq_device_array<tcq_encoder_tables> d_tables(1);
    tcq_device_array<float>              d_importance(n_per_row);
    tcq_device_array<float>              d_src(chunk_rows*n_per_row);
    tcq_device_array<uint8_t>            d_dst(chunk_rows*row_blocks*f->type_size);
    tcq_device_array<uint16_t>           d_rows((size_t) n_grid*TCQ_COST_ROWS*TCQ_STATES);
    d_tables.set(tables.get(), 1);
    if (importance) {
        d_importance.set(importance, n_per_row);
    }

    for (int64_t row = 0; row < nrows; row += chunk_rows) {
        const int64_t n        = std::min(chunk_rows, nrows - row);
        const int64_t n_blocks = n*row_blocks;
        d_src.set(src + row*n_per_row, n*n_per_row);
        tcq_encode_blocks<<<std::min((int64_t) n_grid, n_blocks), TCQ_ENCODE_THREADS>>>(
            d_tables.data, d_src.data, importance ? d_importance.data : nullptr, d_dst.data, n_blocks, row_blocks,
            (uint16_t (*)[TCQ_STATES]) d_rows.data);
        CUDA_CHECK(cudaGetLastError());
        d_dst.get((uint8_t *) dst + row*row_blocks*f->type_size, n_blocks*f->type_size);
    }
    return true;
}
