// TCQ on the CPU: dot products in plain C, and the choice of kernels. The SIMD versions (arch/) equal the plain ones in the
// integer part of each block.

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

// the plain C kernel of a type, and the function that ggml's table names, which runs the kernel in use
#define TCQ_DEFINE_VEC_DOT(R, packing, suffix, act)                                                                   \
    static void tcq_generic_vec_dot_##R##suffix(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, \
                                                size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {       \
        assert(nrc == 1);                                                                                             \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                          \
        tcq_vec_dot_##act(tcq_get_format(GGML_TYPE_TCQ##R##suffix), n, s, vx, vy);                                    \
    }                                                                                                                 \
    void ggml_vec_dot_tcq##R##suffix##_##act(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, \
                                             size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {          \
        tcq_kernels_in_use()->vec_dot[packing][R - 1](n, s, bs, vx, bx, vy, by, nrc);                                 \
    }
#define TCQ_DEFINE_VEC_DOTS(R) TCQ_DEFINE_VEC_DOT(R, 0, , q8_K) TCQ_DEFINE_VEC_DOT(R, 1, _64, q8_0)
TCQ_RATES(TCQ_DEFINE_VEC_DOTS)

#define TCQ_GENERIC_256(R) tcq_generic_vec_dot_##R,
#define TCQ_GENERIC_64(R)  tcq_generic_vec_dot_##R##_64,

static const tcq_kernels tcq_kernels_generic = {
    .name    = "generic",
    .vec_dot = { { TCQ_RATES(TCQ_GENERIC_256) }, { TCQ_RATES(TCQ_GENERIC_64) } },
};

#if defined(TCQ_X86)
// unknown to __builtin_cpu_supports of older compilers
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

static const tcq_kernels * tcq_chosen_kernels = &tcq_kernels_generic;

void ggml_tcq_cpu_init(void) {
    const tcq_kernels * list[TCQ_MAX_KERNELS];
    const int           n    = ggml_tcq_cpu_kernels(list);
    const char        * name = getenv("GGML_TCQ_KERNELS");

    tcq_chosen_kernels = list[0];
    for (int i = 0; i < n && name; ++i) {
        if (strcmp(list[i]->name, name) == 0) {
            tcq_chosen_kernels = list[i];
        }
    }
}

const tcq_kernels * tcq_kernels_in_use(void) {
    return tcq_chosen_kernels;
}

// position: 256 weights or 64, in the order of the tile; value: of tcqR_slots
static void tcq_set_slot(tcq_slots * slots, int slot, int position, int16_t value) {
    slots->group[slot] = position/4;
    slots->shift[slot] = 24 - 8*(position % 4);
    slots->value[slot] = (uint16_t) value;
}

void tcq_unpack_row(const tcq_kernels * kernels, const tcq_format * f, const uint8_t * x, int row, tcq_tile * tile) {
    const tcq_unpack_t unpack = kernels->unpack[f->block_size == QK_TCQ_64][f->rate - 1];

    for (int b = 0; b < tile->n_blocks; ++b, x += f->type_size) {
        const int      i     = b*TCQ_TILE + row;
        const uint32_t slots = tcq_block_slots(f, x);

        unpack(x, tile->levels + (size_t) i*f->block_size);
        tile->d[i] = tcq_block_scale(f, x);
        for (int slot = 0; slot < tcq_n_slots(f->block_size); ++slot) {
            tcq_set_slot(&tile->slots[i], slot, tcq_slot_position(f->block_size, slots, slot),
                         f->slots[tcq_slot_index(f->block_size, slots, slot)]);
        }
    }
}

void tcq_unpack_group(const tcq_kernels * kernels, const tcq_format * f, const uint8_t * x, int row, tcq_tile * tile) {
    for (int b = 0; b < tile->n_blocks; ++b, x += tcq_group_block_size(f->rate)) {
        const int              i    = b*TCQ_TILE + row;
        const tcq_group_side * side = (const tcq_group_side *) (x + 8*32*f->rate);

        kernels->unpack_group[f->rate - 1](x, tile->levels + (size_t) i*QK_TCQ);
        for (int r = 0; r < TCQ_GROUP; ++r) {
            tile->d[i + r] = side->d[r];
            for (int slot = 0; slot < 3; ++slot) {
                tcq_set_slot(&tile->slots[i + r], slot, side->slots[r][slot], f->slots[4*side->slots[r][3] + slot]);
            }
        }
    }
}
