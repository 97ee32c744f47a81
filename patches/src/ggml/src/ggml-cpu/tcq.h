// TCQ on the CPU: dot products of quantized rows with quantized activations.

#pragma once

#include "ggml.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// blocks of 256 against Q8_K, blocks of 64 against Q8_0
#define TCQ_DECLARE_VEC_DOT(name)                                                                             \
    void ggml_vec_dot_##name          (int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, \
                                       size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc);         \
    void ggml_vec_dot_##name##_generic(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, \
                                       size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc);

TCQ_DECLARE_VEC_DOT(tcq1_q8_K)
TCQ_DECLARE_VEC_DOT(tcq2_q8_K)
TCQ_DECLARE_VEC_DOT(tcq3_q8_K)
TCQ_DECLARE_VEC_DOT(tcq4_q8_K)
TCQ_DECLARE_VEC_DOT(tcq5_q8_K)
TCQ_DECLARE_VEC_DOT(tcq1_64_q8_0)
TCQ_DECLARE_VEC_DOT(tcq2_64_q8_0)
TCQ_DECLARE_VEC_DOT(tcq3_64_q8_0)
TCQ_DECLARE_VEC_DOT(tcq4_64_q8_0)
TCQ_DECLARE_VEC_DOT(tcq5_64_q8_0)

// from_float of type_traits_cpu
#define TCQ_DECLARE_FROM_FLOAT(name) \
    void quantize_row_##name(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k);

TCQ_DECLARE_FROM_FLOAT(tcq1)
TCQ_DECLARE_FROM_FLOAT(tcq2)
TCQ_DECLARE_FROM_FLOAT(tcq3)
TCQ_DECLARE_FROM_FLOAT(tcq4)
TCQ_DECLARE_FROM_FLOAT(tcq5)
TCQ_DECLARE_FROM_FLOAT(tcq1_64)
TCQ_DECLARE_FROM_FLOAT(tcq2_64)
TCQ_DECLARE_FROM_FLOAT(tcq3_64)
TCQ_DECLARE_FROM_FLOAT(tcq4_64)
TCQ_DECLARE_FROM_FLOAT(tcq5_64)

#ifdef __cplusplus
}
#endif
