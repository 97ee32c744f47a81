// TCQ on the CPU: the scalar dot products, in plain C. Equal to the SIMD versions in the integer part of each block.

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "ggml-impl.h"
#include "ggml-tcq.h"
#include "simd-mappings.h"
#include "tcq.h"

#include <assert.h>

static void tcq_vec_dot_q8_K(const tcq_format * f, int n, float * s, const uint8_t * x, const block_q8_K * y) {
    assert(n % QK_TCQ == 0);

    float sum = 0.0f;
    for (int i = 0; i < n/QK_TCQ; ++i, x += f->type_size) {
        int16_t w[QK_TCQ];
        tcq_unpack_block(f, x, w);
        int32_t dot = 0;
        for (int j = 0; j < QK_TCQ; ++j) {
            dot += w[j]*y[i].qs[j];
        }
        sum += tcq_block_scale(f, x)*y[i].d*dot;
    }
    *s = sum;
}

static void tcq_vec_dot_q8_0(const tcq_format * f, int n, float * s, const uint8_t * x, const block_q8_0 * y) {
    assert(n % QK_TCQ_64 == 0);

    float sum = 0.0f;
    for (int i = 0; i < n/QK_TCQ_64; ++i, x += f->type_size, y += 2) {
        int16_t w[QK_TCQ_64];
        tcq_unpack_block(f, x, w);
        int32_t dot[2] = { 0, 0 };
        for (int j = 0; j < QK_TCQ_64; ++j) {
            dot[j/QK8_0] += w[j]*y[j/QK8_0].qs[j % QK8_0];
        }
        sum += tcq_block_scale(f, x)*(GGML_CPU_FP16_TO_FP32(y[0].d)*dot[0] + GGML_CPU_FP16_TO_FP32(y[1].d)*dot[1]);
    }
    *s = sum;
}

#define TCQ_DEFINE_VEC_DOT(name, TYPE, act)                                                                             \
    void ggml_vec_dot_##name##_##act##_generic(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, \
                                               size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {          \
        assert(nrc == 1);                                                                                               \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                            \
        tcq_vec_dot_##act(tcq_get_format(TYPE), n, s, vx, vy);                                                          \
    }                                                                                                                   \
    void ggml_vec_dot_##name##_##act(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx,          \
                                     size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {                    \
        ggml_vec_dot_##name##_##act##_generic(n, s, bs, vx, bx, vy, by, nrc);                                           \
    }

TCQ_DEFINE_VEC_DOT(tcq1,    GGML_TYPE_TCQ1,    q8_K)
TCQ_DEFINE_VEC_DOT(tcq2,    GGML_TYPE_TCQ2,    q8_K)
TCQ_DEFINE_VEC_DOT(tcq3,    GGML_TYPE_TCQ3,    q8_K)
TCQ_DEFINE_VEC_DOT(tcq4,    GGML_TYPE_TCQ4,    q8_K)
TCQ_DEFINE_VEC_DOT(tcq5,    GGML_TYPE_TCQ5,    q8_K)
TCQ_DEFINE_VEC_DOT(tcq1_64, GGML_TYPE_TCQ1_64, q8_0)
TCQ_DEFINE_VEC_DOT(tcq2_64, GGML_TYPE_TCQ2_64, q8_0)
TCQ_DEFINE_VEC_DOT(tcq3_64, GGML_TYPE_TCQ3_64, q8_0)
TCQ_DEFINE_VEC_DOT(tcq4_64, GGML_TYPE_TCQ4_64, q8_0)
TCQ_DEFINE_VEC_DOT(tcq5_64, GGML_TYPE_TCQ5_64, q8_0)
