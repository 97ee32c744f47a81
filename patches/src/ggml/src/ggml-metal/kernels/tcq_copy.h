// TCQ get_rows and copies to float types, included at the end of quantize.metal: its templates over dequantize_tcq.

#pragma once

#include "tcq.h"

#define TCQ_INSTANTIATE(name, NAME, qk)                                                     \
    template [[host_name("kernel_get_rows_" #name)]]                                        \
        kernel get_rows_q_t kernel_get_rows_q<block_##name, qk/16, dequantize_tcq>;         \
    template [[host_name("kernel_cpy_" #name "_f32")]]                                      \
        kernel cpy_q_f_t kernel_cpy_q_f32<float4x4, block_##name, qk/16, dequantize_tcq>;   \
    template [[host_name("kernel_cpy_" #name "_f16")]]                                      \
        kernel cpy_q_f_t kernel_cpy_q_f32<half4x4,  block_##name, qk/16, dequantize_tcq>;
TCQ_FOR_EACH_TYPE(TCQ_INSTANTIATE)
#undef TCQ_INSTANTIATE
