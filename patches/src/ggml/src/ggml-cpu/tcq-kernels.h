// TCQ on the CPU: the table of kernels that each instruction set fills, and what their sources share.

#pragma once

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "ggml-cpu.h"
#include "ggml-tcq.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define TCQ_INLINE static __forceinline
#define TCQ_TABLE  static const __declspec(align(64))
#else
#define TCQ_INLINE static inline __attribute__((always_inline))
#define TCQ_TABLE  __attribute__((unused, aligned(64))) static const
#endif

// one binary holds the kernels of every x86 instruction set; other compilers cannot raise the target within a file
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define TCQ_X86
#endif

// kernels of one instruction set, by packing (0: blocks of 256, 1: blocks of 64) and rate - 1
typedef struct {
    const char *   name;
    ggml_vec_dot_t vec_dot[2][5];
} tcq_kernels;

extern const tcq_kernels tcq_kernels_avx2;
extern const tcq_kernels tcq_kernels_gfni;    // AVX2 and GFNI
extern const tcq_kernels tcq_kernels_avxvnni; // AVX2, GFNI and AVX-VNNI
extern const tcq_kernels tcq_kernels_avx512;  // AVX-512 with BW, DQ, VL, VBMI and VNNI, and GFNI

#define TCQ_MAX_KERNELS 8

// the kernels that this CPU runs, best first, plain C last; returns how many
GGML_BACKEND_API int ggml_tcq_cpu_kernels(const tcq_kernels ** list);
