// TCQ matrix-vector products, included at the end of mul_mv.metal: levels lie in threadgroup memory as floats; a thread
// multiplies 32 weights (one word of the path) of NR0 rows with the same 32 values.

#pragma once

#include "tcq.h"

template<typename block_q, int NR0, typename args_t>
void kernel_mul_mv_tcq_f32_impl(
        args_t args,
        device const char * src0,
        device const char * src1,
        device       char * dst,
        threadgroup  char * shmem,
        uint3  tgpig,
        ushort tiisg,
        ushort sgitg) {
    using T = tcq_traits<block_q>;

    const short NSG = FC_mul_mv_nsg;

    // every simdgroup writes the whole table: the same values, and none waits for another
    threadgroup float * levels = (threadgroup float *) shmem;
    for (short i = tiisg; i < TCQ_SUBSETS << (T::rate - 1); i += N_SIMDWIDTH) {
        levels[i] = T::levels()[i];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    const int r0 = tgpig.x;
    const int r1 = tgpig.y;
    const int im = tgpig.z;

    const int first_row = (r0*NSG + sgitg)*NR0;

    const uint i12 = im%FC_mul_mv_ne12;
    const uint i13 = im/FC_mul_mv_ne12;

    const uint64_t offset0 = (i12/FC_mul_mv_r2)*args.nb02 + (i13/FC_mul_mv_r3)*args.nb03;
    const uint64_t offset1 = r1*args.nb11 + i12*args.nb12 + i13*args.nb13;

    device const block_q * x[NR0];
    for (short row = 0; row < NR0; ++row) { // rows past the end repeat the last and are not stored
        x[row] = (device const block_q *) (src0 + offset0 + min(first_row + row, args.ne01 - 1)*args.nb01);
    }
    device const float * y = (device const float *) (src1 + offset1);

    const int   nb   = args.ne00/T::block_size;
    const short word = tiisg%T::n_words;

    float sumf[NR0] = { 0.f };

    for (int ib = tiisg/T::n_words; ib < nb; ib += N_SIMDWIDTH/T::n_words) {
        device const float * yb = y + ib*T::block_size;

        float4 yl[8];
        FOR_UNROLL (short k = 0; k < 8; ++k) {
            yl[k] = *(device const float4 *) (yb + k*T::n_bytes + 4*word);
        }

        for (short row = 0; row < NR0; ++row) {
            device const block_q * xb = x[row] + ib;

            uint32_t index[8];
            tcq_get_indices(xb, word, index);

            float4 acc = { 0.f, 0.f, 0.f, 0.f };
            FOR_UNROLL (short k = 0; k < 8; ++k) {
                const float4 w = {
                    levels[index[k]       & 0xff], levels[index[k] >>  8 & 0xff],
                    levels[index[k] >> 16 & 0xff], levels[index[k] >> 24],
                };
                acc += yl[k]*w;
            }
            float sum = acc[0] + acc[1] + acc[2] + acc[3];

            if (word < T::n_slots) {
                const uint32_t slots = tcq_get_slots(xb);
                sum += T::slots()[tcq_slot_index(T::block_size, slots, word)]*yb[tcq_slot_position(T::block_size, slots, word)];
            }
            sumf[row] += tcq_get_scale(xb)*sum;
        }
    }

    device float * dst_f32 = (device float *) dst + (uint64_t) im*args.ne0*args.ne1 + (uint64_t) r1*args.ne0;

    for (short row = 0; row < NR0 && first_row + row < args.ne0; ++row) {
        const float sum_all = simd_sum(sumf[row]);
        if (tiisg == 0) {
            dst_f32[first_row + row] = sum_all;
        }
    }
}

template<typename block_q>
kernel void kernel_mul_mv_tcq_f32(
        constant ggml_metal_kargs_mul_mv & args,
        device const char * src0,
        device const char * src1,
        device       char * dst,
        threadgroup  char * shmem [[threadgroup(0)]],
        uint3  tgpig[[threadgroup_position_in_grid]],
        ushort tiisg[[thread_index_in_simdgroup]],
        ushort sgitg[[simdgroup_index_in_threadgroup]]) {
    kernel_mul_mv_tcq_f32_impl<block_q, N_R0_TCQ, constant ggml_metal_kargs_mul_mv &>(
        args, src0, src1, dst, shmem, tgpig, tiisg, sgitg);
}

typedef decltype(kernel_mul_mv_tcq_f32<block_tcq<1>>) kernel_mul_mv_tcq_t;

#define TCQ_INSTANTIATE(name, NAME, qk)                                                     \
    template [[host_name("kernel_mul_mv_" #name "_f32")]]                                   \
        kernel kernel_mul_mv_tcq_t kernel_mul_mv_tcq_f32<block_##name>;                     \
    template [[host_name("kernel_mul_mv_id_" #name "_f32")]]                                \
        kernel kernel_mul_mv_id_t  kernel_mul_mv_id<mmv_fn<kernel_mul_mv_tcq_f32_impl<block_##name, N_R0_TCQ>>>;
TCQ_FOR_EACH_TYPE(TCQ_INSTANTIATE)
#undef TCQ_INSTANTIATE
