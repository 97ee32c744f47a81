// TCQ on the CPU: the scalar dot products in plain C, and the choice of kernels. The SIMD versions (arch/) equal the scalar
// ones in the integer part of each block.

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "ggml-impl.h"
#include "ggml-tcq.h"
#include "simd-mappings.h"
#include "tcq.h"
#include "tcq-kernels.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#if defined(TCQ_X86)
#include <cpuid.h>
#endif

#if defined(TCQ_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

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

#define TCQ_DEFINE_VEC_DOT(R, packing, suffix, TYPE, act)                                                                 \
    void ggml_vec_dot_tcq##R##suffix##_##act##_generic(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, \
                                                       size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {    \
        assert(nrc == 1);                                                                                                 \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                              \
        tcq_vec_dot_##act(tcq_get_format(TYPE), n, s, vx, vy);                                                            \
    }                                                                                                                     \
    void ggml_vec_dot_tcq##R##suffix##_##act(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx,    \
                                             size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {              \
        tcq_kernels_in_use()->vec_dot[packing][R - 1](n, s, bs, vx, bx, vy, by, nrc);                                     \
    }

TCQ_DEFINE_VEC_DOT(1, 0,    , GGML_TYPE_TCQ1,    q8_K)
TCQ_DEFINE_VEC_DOT(2, 0,    , GGML_TYPE_TCQ2,    q8_K)
TCQ_DEFINE_VEC_DOT(3, 0,    , GGML_TYPE_TCQ3,    q8_K)
TCQ_DEFINE_VEC_DOT(4, 0,    , GGML_TYPE_TCQ4,    q8_K)
TCQ_DEFINE_VEC_DOT(5, 0,    , GGML_TYPE_TCQ5,    q8_K)
TCQ_DEFINE_VEC_DOT(1, 1, _64, GGML_TYPE_TCQ1_64, q8_0)
TCQ_DEFINE_VEC_DOT(2, 1, _64, GGML_TYPE_TCQ2_64, q8_0)
TCQ_DEFINE_VEC_DOT(3, 1, _64, GGML_TYPE_TCQ3_64, q8_0)
TCQ_DEFINE_VEC_DOT(4, 1, _64, GGML_TYPE_TCQ4_64, q8_0)
TCQ_DEFINE_VEC_DOT(5, 1, _64, GGML_TYPE_TCQ5_64, q8_0)

static const tcq_kernels tcq_kernels_generic = {
    .name    = "generic",
    .vec_dot = {
        {
            ggml_vec_dot_tcq1_q8_K_generic, ggml_vec_dot_tcq2_q8_K_generic, ggml_vec_dot_tcq3_q8_K_generic,
            ggml_vec_dot_tcq4_q8_K_generic, ggml_vec_dot_tcq5_q8_K_generic,
        },
        {
            ggml_vec_dot_tcq1_64_q8_0_generic, ggml_vec_dot_tcq2_64_q8_0_generic, ggml_vec_dot_tcq3_64_q8_0_generic,
            ggml_vec_dot_tcq4_64_q8_0_generic, ggml_vec_dot_tcq5_64_q8_0_generic,
        },
    },
};

#if defined(TCQ_X86)
// older compilers' __builtin_cpu_supports does not know it
static bool tcq_cpu_has_avxvnni(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

int ggml_tcq_cpu_kernels(const tcq_kernels ** list) {
    int n = 0;
#if defined(TCQ_X86)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool gfni = avx2 && __builtin_cpu_supports("gfni");

    if (gfni && __builtin_cpu_supports("avx512bw")   && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl")   && __builtin_cpu_supports("avx512vbmi") &&
                __builtin_cpu_supports("avx512vnni")) {
        list[n++] = &tcq_kernels_avx512;
    }
    if (gfni && tcq_cpu_has_avxvnni())             { list[n++] = &tcq_kernels_avxvnni; }
    if (gfni)                                      { list[n++] = &tcq_kernels_gfni;    }
    if (avx2)                                      { list[n++] = &tcq_kernels_avx2;    }
#elif defined(TCQ_ARM)
#if defined(__linux__)
    const bool dotprod = getauxval(AT_HWCAP)  & HWCAP_ASIMDDP;
    const bool i8mm    = getauxval(AT_HWCAP2) & HWCAP2_I8MM;
#else
    const bool dotprod = ggml_cpu_has_dotprod();
    const bool i8mm    = ggml_cpu_has_matmul_int8();
#endif
    if (dotprod && i8mm) { list[n++] = &tcq_kernels_i8mm;    }
    if (dotprod)         { list[n++] = &tcq_kernels_dotprod; }
    list[n++] = &tcq_kernels_neon;
#endif
    list[n++] = &tcq_kernels_generic;
    return n;
}

const tcq_kernels * tcq_kernels_in_use(void) {
    static const tcq_kernels * in_use; // threads that race here write the same pointer

    if (in_use == NULL) {
        const tcq_kernels * list[TCQ_MAX_KERNELS];
        const int           n    = ggml_tcq_cpu_kernels(list);
        const char        * name = getenv("GGML_TCQ_KERNELS");

        int chosen = 0;
        for (int i = 0; i < n && name; ++i) {
            if (strcmp(list[i]->name, name) == 0) {
                chosen = i;
            }
        }
        in_use = list[chosen];
    }
    return in_use;
}

void tcq_unpack_row(const tcq_kernels * kernels, const tcq_format * f, const uint8_t * x, int row, tcq_tile * tile) {
    const tcq_unpack_t unpack = kernels->unpack[f->block_size == QK_TCQ_64][f->rate - 1];

    for (int b = 0; b < tile->n_blocks; ++b, x += f->type_size) {
        const int       i    = b*TCQ_TILE + row;
        const uint8_t * slot = x + f->rate*f->block_size/8;
        tcq_slots     * out  = &tile->slots[i];

        unpack(x, tile->levels + (size_t) i*f->block_size);
        tile->d[i] = tcq_block_scale(f, x);
        if (f->block_size == QK_TCQ) {
            out->position[0] = slot[0];
            out->position[1] = slot[1];
            out->value   [0] = f->slots[slot[2] & 0xf];
            out->value   [1] = f->slots[slot[2] >> 4];
        } else {
            out->position[0] = slot[0] & 0x3f;
            out->value   [0] = f->slots[slot[0] >> 6];
        }
    }
}
