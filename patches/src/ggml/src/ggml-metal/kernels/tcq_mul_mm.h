// TCQ matrix-matrix products, included at the end of mul_mm.metal: its templates over dequantize_tcq.

#pragma once

#include "tcq.h"

#define TCQ_MUL_MM(name, qk, T1, T1_2x4) \
    <half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, \
     block_##name, qk/16, dequantize_tcq, float, float4x4, T1, T1_2x4>

#define TCQ_INSTANTIATE(name, NAME, qk) \
    template [[host_name("kernel_mul_mm_" #name "_f32")]]                        \
        kernel mul_mm_t  kernel_mul_mm    TCQ_MUL_MM(name, qk, float, float2x4); \
    template [[host_name("kernel_mul_mm_" #name "_f16")]]                        \
        kernel mul_mm_t  kernel_mul_mm    TCQ_MUL_MM(name, qk, half,  half2x4);  \
    template [[host_name("kernel_mul_mm_id_" #name "_f32")]]                     \
        kernel mul_mm_id kernel_mul_mm_id TCQ_MUL_MM(name, qk, float, float2x4); \
    template [[host_name("kernel_mul_mm_id_" #name "_f16")]]                     \
        kernel mul_mm_id kernel_mul_mm_id TCQ_MUL_MM(name, qk, half,  half2x4);
TCQ_FOR_EACH_TYPE(TCQ_INSTANTIATE)
#undef TCQ_INSTANTIATE
