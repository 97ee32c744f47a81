// TCQ in mmvq, the products of a matrix and few columns, and a kernel of its own for one column: decoding.
//
// On an H200 they are not bound by memory but by the data path of shared memory and L1, which the lookups of rates 3 to 5
// use, and then by instructions (docs/kernels-gpu.md). A load that touches n lines of 128 bytes takes that path n times, so
// the lanes of a warp are spread over a few rows in the same columns, where they share their activations.

#pragma once

#include "tcq.cuh"
#include "unary.cuh"

#include <algorithm>
#include <type_traits>

template <typename T>
static constexpr int tcq_y_size = T::block_size/QK8_1*sizeof(block_q8_1); // bytes of a block's activations

template <typename T, int n_words>
struct tcq_activations {
    int   u[n_words][8];
    float d;
};

template <typename T, int n_words>
static __device__ __forceinline__ tcq_activations<T, n_words> tcq_load_activations(const int8_t * y, uint32_t word) {
    tcq_activations<T, n_words> a;
#pragma unroll
    for (int i = 0; i < n_words; ++i) {
        if constexpr (T::block_size == QK_TCQ) {
            *(int4 *) &a.u[i][0] = *(const int4 *) (y + 16*(word + i));
            *(int4 *) &a.u[i][4] = *(const int4 *) (y + 16*(word + i) + QK_TCQ/2);
        } else {
#pragma unroll
            for (int kk = 0; kk < 4; ++kk) { // aligned to 8 bytes only
                *(int2 *) &a.u[i][2*kk] = *(const int2 *) (y + 32*(word + i) + 8*kk);
            }
        }
    }
    a.d = *(const float *) (y + T::block_size);
    return a;
}

// the integer product of a block's words word.. with their activations, without the slots; and the block's last bytes
struct tcq_dot {
    int      sum;
    uint32_t tail;
};

template <ggml_type type, int n_words>
static __device__ __forceinline__ tcq_dot tcq_dot_words(
        const uint8_t * block, uint32_t word, const tcq_activations<tcq_traits<type>, n_words> & a,
        const tcq_level_words<tcq_traits<type>::rate> & words = {}) {
    using T = tcq_traits<type>;

    tcq_dot dot   = { 0, tcq_load_tail<T>(block) };
    int     minus = 0;

    uint32_t prev = tcq_load_previous_word<T>(block, word);
#pragma unroll
    for (int i = 0; i < n_words; ++i) {
        const tcq_word<T> w = tcq_load_words<T>(block, word + i);
        const tcq_levels l = tcq_unpack_levels<T>(prev, w, words);
        prev = w.path;
#pragma unroll
        for (int g = 0; g < 8; ++g) {
            dot.sum = ggml_cuda_dp4a(l.v[g], a.u[i][g], dot.sum);
            if (tcq_has_minus(T::rate, g/2)) {
                minus = ggml_cuda_dp4a(l.minus[g], a.u[i][g], minus);
            }
        }
    }
    dot.sum -= minus;
    return dot;
}

template <ggml_type type>
static __device__ __forceinline__ int tcq_dot_slot(uint32_t tail, int slot, const int8_t * y) {
    using T = tcq_traits<type>;
    return tcq_get_slot_value<T>(tail, slot)*y[(uint32_t) tcq_q8_offset<T>(tcq_get_slot_position<T>(tail, slot))];
}

// ---------------------------------------------------------------------------------------------------------------
// upstream's kernels: a few columns, and experts of several tokens

static constexpr __host__ __device__ int tcq_get_vdr_mmvq(ggml_type type) {
    return type >= GGML_TYPE_TCQ1_64 ? 1 : 2;
}

template <ggml_type type>
static __device__ __forceinline__ float vec_dot_tcq_q8(
        const void * __restrict__ vbq, const block_q8_1 * __restrict__ bq8_1, const int & kbx, const int & iqs) {
    using T = tcq_traits<type>;
    constexpr int vdr = tcq_get_vdr_mmvq(type);

    const uint8_t * block = (const uint8_t *) vbq + (int64_t) kbx*T::type_size;
    const int8_t  * y     = (const int8_t  *) bq8_1;

    const tcq_activations<T, vdr> a = tcq_load_activations<T, vdr>(y, iqs);
    tcq_dot dot = tcq_dot_words<type, vdr>(block, iqs, a);
    if (iqs/vdr < T::n_slots) {
        dot.sum += tcq_dot_slot<type>(dot.tail, iqs/vdr, y);
    }
    return tcq_get_scale<T>(dot.tail)*a.d*dot.sum;
}

// ---------------------------------------------------------------------------------------------------------------
// one column

#define TCQ_MMVQ_MAX_WARPS 8
#define TCQ_MMVQ_FEW_ROWS  2048
#define TCQ_MMVQ_MANY_ROWS 32768

// How a warp takes a few rows side by side. Measured on an H200. With blocks of 64, four rows would touch more lines than two.
template <ggml_type type>
struct tcq_mmvq_config {
    using T = tcq_traits<type>;
    static constexpr int n_rows        = T::block_size == QK_TCQ ? 4 : 2;
    static constexpr int lanes_per_row = 32/n_rows;
    static constexpr int n_blocks      = T::block_size == QK_TCQ ? 2 : 1;     // a lane takes a word of each at a time,
    static constexpr int row_step      = n_blocks*lanes_per_row/T::n_words;   // and a row's lanes so many blocks

    // thread blocks of 8 warps that a multiprocessor should hold at least, where it can hold 64 warps (data centre cards)
    static constexpr __host__ __device__ int get_min_blocks() {
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
        return 4;
#else
        return 1;
#endif
    }
};

// a thread's share of its row's sum: its matrix's and the gate's
struct tcq_sums {
    float x    = 0.0f;
    float gate = 0.0f;
};

// What the slots of a block of 256 add to its row's sum.
template <typename T>
static __device__ __forceinline__ float tcq_dot_slots(uint32_t tail, const int8_t * y) {
    int sum = 0;
#pragma unroll
    for (int slot = 0; slot < T::n_slots; ++slot) {
        sum += tcq_get_slot_value<T>(tail, slot)*y[(uint32_t) tcq_q8_offset<T>(tcq_get_slot_position<T>(tail, slot))];
    }
    return tcq_get_scale<T>(tail)**(const float *) (y + T::block_size)*sum;
}

// The slots of a row's blocks, a lane for each block: far fewer instructions than along with the blocks, where most lanes
// would wait for those that have a slot. x, gate: the lane's row; y: the column.
template <ggml_type type, bool has_gate>
static __device__ __forceinline__ void tcq_add_slots(
        const uint8_t * x, const uint8_t * gate, const int8_t * y, uint32_t row_blocks, uint32_t lane, uint32_t warp,
        uint32_t n_warps, tcq_sums & sums) {
    using T = tcq_traits<type>;
    constexpr uint32_t n_lanes = tcq_mmvq_config<type>::lanes_per_row;
    for (uint32_t ib = warp*n_lanes + lane%n_lanes; ib < row_blocks; ib += n_warps*n_lanes) {
        sums.x += tcq_dot_slots<T>(tcq_load_tail<T>(x + ib*T::type_size), y + ib*tcq_y_size<T>);
        if constexpr (has_gate) {
            sums.gate += tcq_dot_slots<T>(tcq_load_tail<T>(gate + ib*T::type_size), y + ib*tcq_y_size<T>);
        }
    }
}

// The rest of a row's sum; with blocks of 64, all of it. Arguments as above. Blocks of 256 are taken in twos, so that a load's
// lanes touch few lines, and two of them hide each other's latency. A row's last one may have none of its own behind it, but
// there is one, whose activations are zeros, because llama.cpp pads matrices and activations (MATRIX_ROW_PADDING).
template <ggml_type type, bool has_gate>
static __device__ __forceinline__ void tcq_add_blocks(
        const uint8_t * x, const uint8_t * gate, const int8_t * y, uint32_t row_blocks, uint32_t lane, uint32_t warp,
        uint32_t n_warps, tcq_sums & sums) {
    using T = tcq_traits<type>;
    using C = tcq_mmvq_config<type>;
    static_assert(MATRIX_ROW_PADDING % (C::n_blocks*T::block_size) == 0, "there is a block behind the last one");
    const uint32_t word  = lane%T::n_words;
    const uint32_t first = warp*C::row_step + lane%C::lanes_per_row/T::n_words*C::n_blocks;
    const uint32_t step  = n_warps*C::row_step;
    const tcq_level_words<T::rate> words(lane & ((int) row_blocks >> 31));

    x    += first*T::type_size;
    gate += first*T::type_size;
    y    += first*tcq_y_size<T>;
    for (uint32_t ib = first; ib < row_blocks; ib += step) {
#pragma unroll
        for (int i = 0; i < C::n_blocks; ++i) {
            const int8_t * yi = y + i*tcq_y_size<T>;
            const tcq_activations<T, 1> a = tcq_load_activations<T, 1>(yi, word);
            const auto dot = [&](const uint8_t * block) {
                tcq_dot d = tcq_dot_words<type, 1>(block, word, a, words);
                if (T::block_size != QK_TCQ && word < T::n_slots) { // a lane for each
                    d.sum += tcq_dot_slot<type>(d.tail, word, yi);
                }
                return tcq_get_scale<T>(d.tail)*a.d*d.sum;
            };
            sums.x += dot(x + i*T::type_size);
            if constexpr (has_gate) {
                sums.gate += dot(gate + i*T::type_size);
            }
        }
        x    += step*T::type_size;
        gate += step*T::type_size;
        y    += step*tcq_y_size<T>;
    }
}

static __device__ __forceinline__ void tcq_prefetch(const void * p) {
    asm volatile("prefetch.global.L2 [%0];" :: "l"(p));
}

// Arguments as mul_mat_vec_q's; row_blocks: blocks of a row. The warps of a thread block share its rows.
template <ggml_type type, bool has_gate, bool few_rows>
__launch_bounds__(32*TCQ_MMVQ_MAX_WARPS, (tcq_mmvq_config<type>::get_min_blocks()))
static __global__ void tcq_mul_mat_vec(
        const void * x_ptr, const void * y_ptr, const int32_t * ids_ptr, const ggml_cuda_mm_fusion_args_device fusion,
        float * dst_ptr,
        const int row_blocks, const uint32_t n_rows, const uint3 nchannels_y, const uint32_t stride_row_x,
        const uint3 channel_ratio, const uint32_t stride_channel_x, const uint32_t stride_channel_y,
        const uint32_t stride_channel_dst, const uint3 sample_ratio, const uint32_t stride_sample_x,
        const uint32_t stride_sample_y, const uint32_t stride_sample_dst) {
    using T = tcq_traits<type>;
    using C = tcq_mmvq_config<type>;

    const uint8_t * GGML_CUDA_RESTRICT x    = (const uint8_t *) x_ptr;
    const uint8_t * GGML_CUDA_RESTRICT gate = (const uint8_t *) (has_gate ? fusion.gate : x_ptr);
    const int8_t  * GGML_CUDA_RESTRICT y    = (const int8_t  *) y_ptr;
    const int32_t * GGML_CUDA_RESTRICT ids  = ids_ptr;
    float         * GGML_CUDA_RESTRICT dst  = dst_ptr;

    // unsigned: every thread has few blocks to do, so the time before them counts
    const uint32_t lane    = threadIdx.x;
    const uint32_t warp    = threadIdx.y;
    const int      n_warps = blockDim.y;
    const uint32_t row0    = C::n_rows*blockIdx.x;
    const uint32_t row     = lane/C::lanes_per_row;                  // of the thread block's
    const uint32_t channel_dst = blockIdx.y;
    const uint32_t sample_dst  = blockIdx.z;
    const uint64_t offset      = (uint64_t) fastdiv(sample_dst, sample_ratio)*stride_sample_x
                               + (uint64_t) min(row0 + row, n_rows - 1)*stride_row_x;
    x    += offset*T::type_size;
    gate += offset*T::type_size;

    // few rows do not fill the card, so they cost latency: fetch while the previous kernel runs, as weights are constant
    if (few_rows && !ids) {
        const uint64_t at = (uint64_t) fastdiv(channel_dst, channel_ratio)*stride_channel_x*T::type_size;
        const int      line = 128*(warp*C::lanes_per_row + lane%C::lanes_per_row);
        for (int i = line; i < row_blocks*T::type_size; i += 128*n_warps*C::lanes_per_row) {
            tcq_prefetch(x + at + i);
            if constexpr (has_gate) {
                tcq_prefetch(gate + at + i);
            }
        }
    }

    tcq_init_levels<type>();
    ggml_cuda_pdl_sync();

    const uint32_t channel_x = ids ? ids[channel_dst]                     : fastdiv(channel_dst, channel_ratio);
    const uint32_t channel_y = ids ? fastmodulo(channel_dst, nchannels_y) : channel_dst;
    x    += (uint64_t) channel_x*stride_channel_x*T::type_size;
    gate += (uint64_t) channel_x*stride_channel_x*T::type_size;
    y    += ((uint64_t) sample_dst*stride_sample_y + (uint64_t) channel_y*stride_channel_y)*sizeof(block_q8_1);

    // the threads that write results
    const bool writes = warp == 0 && lane < C::n_rows && row0 + lane < n_rows;

    float bias      = 0.0f;
    float gate_bias = 0.0f;
    if (writes) {
        const uint32_t at = sample_dst*stride_sample_dst + (ids ? channel_x : channel_dst)*stride_channel_dst + row0 + lane;
        bias = fusion.x_bias ? ((const float *) fusion.x_bias)[at] : 0.0f;
        if constexpr (has_gate) {
            gate_bias = fusion.gate_bias ? ((const float *) fusion.gate_bias)[at] : 0.0f;
        }
    }

    tcq_sums sum;
    tcq_add_blocks<type, has_gate>(x, gate, y, row_blocks, lane, warp, n_warps, sum);
    if constexpr (T::block_size == QK_TCQ) {
        tcq_add_slots<type, has_gate>(x, gate, y, row_blocks, lane, warp, n_warps, sum);
    }

    ggml_cuda_pdl_lc(); // the next kernel may start, and wait for this one

    __shared__ float sums[has_gate ? 2 : 1][TCQ_MMVQ_MAX_WARPS][C::n_rows];
    sum.x = warp_reduce_sum<C::lanes_per_row>(sum.x);
    if (lane%C::lanes_per_row == 0) {
        sums[0][warp][row] = sum.x;
    }
    if constexpr (has_gate) {
        sum.gate = warp_reduce_sum<C::lanes_per_row>(sum.gate);
        if (lane%C::lanes_per_row == 0) {
            sums[1][warp][row] = sum.gate;
        }
    }
    __syncthreads();
    if (!writes) {
        return;
    }

    float result = bias;
    for (int i = 0; i < n_warps; ++i) {
        result += sums[0][i][lane];
    }
    if constexpr (has_gate) {
        float gate_value = gate_bias;
        for (int i = 0; i < n_warps; ++i) {
            gate_value += sums[1][i][lane];
        }
        switch (fusion.glu_op) {
            case GGML_GLU_OP_SWIGLU:
                result *= ggml_cuda_op_silu_single(gate_value);
                break;
            case GGML_GLU_OP_GEGLU:
                result *= ggml_cuda_op_gelu_single(gate_value);
                break;
            case GGML_GLU_OP_SWIGLU_OAI:
                result = ggml_cuda_op_swiglu_oai_single(gate_value, result);
                break;
            case GGML_GLU_OP_SWIGLU_CLAMP:
                result = ggml_cuda_op_swiglu_clamp_single(gate_value, result, fusion.glu_limit);
                break;
            default:
                result *= gate_value;
                break;
        }
    }
    dst[sample_dst*stride_sample_dst + channel_dst*stride_channel_dst + row0 + lane] = result;
}

// arguments as mul_mat_vec_q_switch_ncols_dst's
template <ggml_type type>
static void tcq_mul_mat_vec_cuda(
        const void * x, const void * y, const int32_t * ids, const ggml_cuda_mm_fusion_args_device & fusion, float * dst,
        const int ncols_x, const int nrows_x, const uint3 nchannels_y, const int nchannels_dst, const int nsamples_dst,
        const int stride_row_x, const uint3 channel_ratio, const int stride_channel_x, const int stride_channel_y,
        const int stride_channel_dst, const uint3 sample_ratio, const int stride_sample_x, const int stride_sample_y,
        const int stride_sample_dst, cudaStream_t stream) {
    const int row_blocks = ncols_x/tcq_traits<type>::block_size;

    // tags for what the kernel knows when it is compiled
    const auto launch = [&](auto has_gate_tag, auto few_rows_tag) {
        constexpr bool has_gate = decltype(has_gate_tag)::value;
        constexpr bool few_rows = decltype(few_rows_tag)::value;
        using C = tcq_mmvq_config<type>;

        // the fewer rows, the more warps for each, as long as there are blocks for them
        const int n_warps_max = C::n_rows != 4                    ? TCQ_MMVQ_MAX_WARPS/2 :
                                few_rows                          ? TCQ_MMVQ_MAX_WARPS   :
                                nrows_x <= TCQ_MMVQ_MANY_ROWS     ? TCQ_MMVQ_MAX_WARPS/2 : TCQ_MMVQ_MAX_WARPS/4;
        const int n_warps     = std::min(n_warps_max, (row_blocks + C::row_step - 1)/C::row_step);

        const dim3 grid((nrows_x + C::n_rows - 1)/C::n_rows, nchannels_dst, nsamples_dst);
        const ggml_cuda_kernel_launch_params params(grid, dim3(32, n_warps), 0, stream);
        ggml_cuda_kernel_launch(tcq_mul_mat_vec<type, has_gate, few_rows>, params,
            x, y, ids, fusion, dst, row_blocks, (uint32_t) nrows_x, nchannels_y, (uint32_t) stride_row_x,
            channel_ratio, (uint32_t) stride_channel_x, (uint32_t) stride_channel_y, (uint32_t) stride_channel_dst,
            sample_ratio, (uint32_t) stride_sample_x, (uint32_t) stride_sample_y, (uint32_t) stride_sample_dst);
    };
    const auto launch_rows = [&](auto has_gate_tag) {
        if (nrows_x <= TCQ_MMVQ_FEW_ROWS) {
            launch(has_gate_tag, std::true_type{});
        } else {
            launch(has_gate_tag, std::false_type{});
        }
    };
    if (fusion.gate) {
        launch_rows(std::true_type{});
    } else {
        launch_rows(std::false_type{});
    }
}
