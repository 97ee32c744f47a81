// TCQ on the CPU: dot products of quantized rows with quantized activations.

#pragma once

#include "ggml-tcq.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// blocks of 256 with Q8_K, blocks of 64 with Q8_0
#define TCQ_ACT_256      q8_K
#define TCQ_ACT_64       q8_0
#define TCQ_ACT_TYPE_256 GGML_TYPE_Q8_K
#define TCQ_ACT_TYPE_64  GGML_TYPE_Q8_0

// ggml_vec_dot_NAME_ACT, by the kernels in use
#define TCQ_VEC_DOT_2(name, act) ggml_vec_dot_##name##_##act
#define TCQ_VEC_DOT_1(name, act) TCQ_VEC_DOT_2(name, act)
#define TCQ_VEC_DOT(name, qk)    TCQ_VEC_DOT_1(name, TCQ_ACT_##qk)

#define TCQ_DECLARE_VEC_DOT(name, NAME, qk)                                                                      \
    void TCQ_VEC_DOT(name, qk)(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx, \
                               const void * GGML_RESTRICT vy, size_t by, int nrc);
TCQ_FOR_EACH_TYPE(TCQ_DECLARE_VEC_DOT)

// hook: rows for ggml-cpu.c's type_traits_cpu
#define TCQ_TYPE_TRAITS_CPU_ROW(name, NAME, qk)               \
    [GGML_TYPE_##NAME] = {                                    \
        .from_float   = quantize_row_##name##_ref,            \
        .vec_dot      = TCQ_VEC_DOT(name, qk),                \
        .vec_dot_type = TCQ_ACT_TYPE_##qk,                    \
        .nrows        = 1,                                    \
    },
#define TCQ_TYPE_TRAITS_CPU TCQ_FOR_EACH_TYPE(TCQ_TYPE_TRAITS_CPU_ROW)

// hook: chooses the kernels; ggml_cpu_init calls it once, before any product
void ggml_tcq_cpu_init(void);

#ifdef __cplusplus
}
#endif
