// TCQ in MMQ, the quantized matrix product of prefill; needs the integer matrix units of Turing or newer.
//
// Levels fill an int8 tile like any other type's weights. A slot does not fit a byte, so it is split into two digits,
// slot = 64*high + low: the low one is added to its weight (63 + 32 still fits), the high ones form a second matrix, zero
// but for three (or four) digits per row. It is never stored: its fragments are made in registers from the slots' positions,
// and one more product per fragment adds 64 times it.

#pragma once

#include "tcq.cuh"

#define TCQ_MMQ_SLOTS_OFFSET (2*MMQ_TILE_NE_K + 2*MMQ_TILE_NE_K/QI8_0) // the four words that pad a row of a Q8_0 tile

// a slot in a row of 256 weights
struct tcq_mmq_slot {
    int16_t position;
    int8_t  low;
    int8_t  high;
};
static_assert(sizeof(tcq_mmq_slot) == sizeof(int), "one word of the padding");

template <typename T>
static __device__ __forceinline__ tcq_mmq_slot tcq_mmq_get_slot(uint32_t tail, int slot, int first_weight) {
    const int position = tcq_get_slot_position<T>(tail, slot);
    int       value    = tcq_get_slot_value<T>(tail, slot);
    if constexpr (T::n_slots == 3) { // one digit per weight: of slots 0 and 2 on one weight, the first takes both values
        if (tcq_get_slot_position<T>(tail, 0) == tcq_get_slot_position<T>(tail, 2)) {
            value = slot == 0 ? value + tcq_get_slot_value<T>(tail, 2) : 0; // and slot 1, there too, has none
        }
    }
    const int high = (value + 32) >> 6;
    return { (int16_t) (first_weight + position), (int8_t) (value - 64*high), (int8_t) high };
}

template <ggml_type type, int J, bool fallback> static __device__ __forceinline__ void tcq_mmq_load_tiles(
        const char * __restrict__ x, int * __restrict__ x_tile, const int kbx0, const int i_max, const int stride) {
    using T = tcq_traits<type>;
    constexpr int warp_size       = ggml_cuda_get_physical_warp_size();
    constexpr int nwarps          = ggml_cuda_mmq_get_nthreads(type, J, fallback, GGML_PREC_Q8) / warp_size;
    constexpr int I               = ggml_cuda_mmq_get_I(type, J, fallback, GGML_PREC_Q8);
    constexpr int sram_stride     = ggml_cuda_mmq_get_sram_stride(type, J, fallback, GGML_PREC_Q8);
    constexpr int threads_per_row = MMQ_ITER_K / 32;
    constexpr int nrows           = warp_size / threads_per_row;

    const int ib   = threadIdx.x % threads_per_row / T::n_words; // block in the row of 256 weights
    const int word = threadIdx.x % T::n_words;

    tcq_init_levels<type>();

#pragma unroll
    for (int i0 = 0; i0 < I; i0 += nrows*nwarps) {
        int i = i0 + threadIdx.y*nrows + threadIdx.x/threads_per_row;

        if (fallback) {
            i = min(i, i_max);
        }

        const uint8_t * block = (const uint8_t *) x + (int64_t) (kbx0 + i*stride + ib)*T::type_size;
        const uint32_t  tail  = tcq_load_tail<T>(block);

        const tcq_levels l = tcq_unpack_levels<T>(block, word);

        int   * row    = x_tile + i*sram_stride;
        int   * x_qs   = row + ib*(T::block_size/4);
        float * x_df   = (float *) (row + 2*MMQ_TILE_NE_K);
        int   * x_slot = row + TCQ_MMQ_SLOTS_OFFSET;

        tcq_mmq_slot slots[T::n_slots];
#pragma unroll
        for (int slot = 0; slot < T::n_slots; ++slot) {
            slots[slot] = tcq_mmq_get_slot<T>(tail, slot, ib*T::block_size);
        }

#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const int at = k*T::n_words + word; // word of the block

            uint32_t low = 0;
#pragma unroll
            for (int slot = 0; slot < T::n_slots; ++slot) {
                const int position = slots[slot].position - ib*T::block_size;
                low |= position >> 2 == at ? (uint32_t) (uint8_t) slots[slot].low << 8*(position & 3) : 0;
            }
            x_qs[at] = __vadd4(tcq_natural_levels<T>(l, k), low);
        }

        x_df[threadIdx.x % threads_per_row] = tcq_get_scale<T>(tail);
#pragma unroll
        for (int slot = 0; slot < T::n_slots; ++slot) {
            if (word == slot) {
                x_slot[ib*T::n_slots + slot] = *(const int *) &slots[slot];
            }
        }
    }
}

#if defined(TURING_MMA_AVAILABLE)
template <ggml_type type, int J, bool fallback> static __device__ __forceinline__ void tcq_mmq_vec_dot_mma(
        const int * __restrict__ x, const int * __restrict__ y, float * __restrict__ sum, const int k00) {
    using T = tcq_traits<type>;
    typedef tile<16, 8, int> tile_A;
    typedef tile< 8, 8, int> tile_B;
    typedef tile<16, 8, int> tile_C;

    constexpr int sram_stride   = ggml_cuda_mmq_get_sram_stride(type, J, fallback, GGML_PREC_Q8);
    constexpr int rows_per_warp = ggml_cuda_mmq_get_config(type, J, fallback, GGML_PREC_Q8).rows_per_warp();
    constexpr int ntx           = rows_per_warp/tile_C::I; // Number of x minitiles per warp.
    constexpr int n_slots       = T::block_size == QK_TCQ ? T::n_slots : 2; // of a row that this call may meet

    y += (threadIdx.y % ntx) * (tile_C::J*MMQ_TILE_Y_K);

    const int   * x_qs   = (const int   *) x;
    const float * x_df   = (const float *) x_qs + 2*MMQ_TILE_NE_K;
    const int   * x_slot = x_qs + TCQ_MMQ_SLOTS_OFFSET + (T::block_size == QK_TCQ ? 0 : k00/16);
    const int   * y_qs   = (const int   *) y + 4;
    const float * y_df   = (const float *) y;

    tile_A A[ntx][MMQ_TILE_NE_K/QI8_0];
    tile_A H[ntx][MMQ_TILE_NE_K/QI8_0]; // high digits
    float dA[ntx][tile_C::ne/2][MMQ_TILE_NE_K/QI8_0];

    const int i0 = (threadIdx.y/ntx)*rows_per_warp;

#pragma unroll
    for (int n = 0; n < ntx; ++n) {
#pragma unroll
        for (int k01 = 0; k01 < MMQ_TILE_NE_K; k01 += QI8_0) {
            load_ldmatrix(A[n][k01/QI8_0], x_qs + (i0 + n*tile_A::I)*sram_stride + k00 + k01, sram_stride);
        }

#pragma unroll
        for (int l = 0; l < tile_A::ne; ++l) { // as load_ldmatrix leaves them
            const int i = i0 + n*tile_A::I + l%2*8 + threadIdx.x/4;

#pragma unroll
            for (int k01 = 0; k01 < MMQ_TILE_NE_K; k01 += QI8_0) {
                const int at = k00 + k01 + l/2*4 + threadIdx.x%4;

                uint32_t high = 0;
#pragma unroll
                for (int slot = 0; slot < n_slots; ++slot) {
                    const tcq_mmq_slot s = *(const tcq_mmq_slot *) &x_slot[i*sram_stride + slot];
                    high |= s.position >> 2 == at ? (uint32_t) (uint8_t) s.high << 8*(s.position & 3) : 0;
                }
                H[n][k01/QI8_0].x[l] = high;
            }
        }

#pragma unroll
        for (int l = 0; l < tile_C::ne/2; ++l) {
            const int i = i0 + n*tile_A::I + tile_C::get_i(2*l);

#pragma unroll
            for (int k01 = 0; k01 < MMQ_TILE_NE_K; k01 += QI8_0) {
                dA[n][l][k01/QI8_0] = x_df[i*sram_stride + (k00 + k01)/QI8_0];
            }
        }
    }

#pragma unroll
    for (int j0 = 0; j0 < J; j0 += ntx*tile_C::J) {
#pragma unroll
        for (int k01 = 0; k01 < MMQ_TILE_NE_K; k01 += QI8_0) {
            tile_B B;
            float dB[tile_C::ne/2];

            load_generic(B, y_qs + j0*MMQ_TILE_Y_K + k01, MMQ_TILE_Y_K);

#pragma unroll
            for (int l = 0; l < tile_C::ne/2; ++l) {
                dB[l] = y_df[(j0 + tile_C::get_j(l))*MMQ_TILE_Y_K + k01/QI8_1];
            }

#pragma unroll
            for (int n = 0; n < ntx; ++n) {
                tile_C C;
                mma(C, H[n][k01/QI8_0], B);
#pragma unroll
                for (int l = 0; l < tile_C::ne; ++l) {
                    C.x[l] *= 64;
                }
                mma(C, A[n][k01/QI8_0], B);

#pragma unroll
                for (int l = 0; l < tile_C::ne; ++l) {
                    sum[(j0/tile_C::J + n)*tile_C::ne + l] += C.x[l]*dA[n][l/2][k01/QI8_0]*dB[l%2];
                }
            }
        }
    }
}
#endif // defined(TURING_MMA_AVAILABLE)
