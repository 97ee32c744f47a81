// TCQ on the CPU: the table of kernels that each instruction set fills, and what their sources share.

#pragma once

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "ggml-cpu.h"
#include "ggml-tcq.h"
#include "tcq-repack.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define TCQ_INLINE static __forceinline
#define TCQ_TABLE  static const __declspec(align(64))
#else
#define TCQ_INLINE static inline __attribute__((always_inline, unused))
#define TCQ_TABLE  __attribute__((unused, aligned(64))) static const
#endif

#ifdef __cplusplus
extern "C" {
#endif

// one binary holds the kernels of every x86 instruction set; other compilers cannot raise the target within a file
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define TCQ_X86
#endif

#if defined(__aarch64__) && defined(__GNUC__)
#define TCQ_ARM
#endif

// added to the levels of the lookup tables: x86 multiplies unsigned by signed bytes (which cannot saturate, as levels are
// at most TCQ_MAX_LEVEL)
enum { TCQ_BIAS = 64 };
static_assert(TCQ_BIAS == TCQ_MAX_LEVEL + 1, "biased levels are 1 .. 127");

// a product's smallest unit: 16 rows (a tile) with 16 columns (a panel)
enum { TCQ_TILE = 16, TCQ_PANEL = 16 };

// rows that are multiplied with one column at a time
enum { TCQ_DOT_ROWS = 4 };

// one block of 16 columns, one scale each
typedef struct {
    float   d   [TCQ_PANEL];
    int32_t bias[TCQ_PANEL]; // -TCQ_BIAS times the sum of the column's q, for kernels whose levels have the bias
    int8_t  q[];             // [block_size/4][TCQ_PANEL][4]
} tcq_panel_block;

// one column, one scale per block of weights
typedef struct {
    int       n_blocks;
    int8_t  * q;     // [n_blocks][block_size]
    float   * d;     // [n_blocks]
    int32_t * bias;  // [n_blocks], -TCQ_BIAS times the sum of the block's q
    ptrdiff_t ahead; // bytes from a block of weights to the one to prefetch meanwhile
} tcq_column;

// what multiply needs to know of a block's slots, of which blocks of 64 have one
typedef struct {
    int32_t group[3]; // of four weights
    int32_t shift[3]; // that brings the slot's byte of the group to the top
    int32_t value[3]; // 16 bits; those above are zero
} tcq_slots;

// 16 decoded rows, block by block
typedef struct {
    int         block_size, n_blocks;
    uint8_t   * levels; // [n_blocks][TCQ_TILE][block_size], as unpack makes them
    float     * d;      // [n_blocks][TCQ_TILE]
    tcq_slots * slots;  // [n_blocks][TCQ_TILE]
} tcq_tile;

// levels of one block in the order of its weights, with TCQ_BIAS or without, as multiply expects them
typedef void (*tcq_unpack_t)(const uint8_t * x, uint8_t * levels);

// s[i] is the product of row x[i] with the column
typedef void (*tcq_dot_rows_t)(const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]);

// one block of a group (tcq-repack.h): levels [TCQ_GROUP][256] in a group's order
typedef void (*tcq_unpack_group_t)(const uint8_t * x, uint8_t * levels);

// s[i] is the product of row i of n consecutive groups with the column, which is in a group's order
typedef void (*tcq_dot_groups_t)(const uint8_t * x, int n, const tcq_column * y, float * s);

// kernels of one instruction set, by packing (0: blocks of 256, 1: blocks of 64) and rate - 1
typedef struct {
    const char *   name;
    ggml_vec_dot_t vec_dot [2][TCQ_N_RATES];
    tcq_unpack_t   unpack  [2][TCQ_N_RATES];
    tcq_dot_rows_t dot_rows[2][TCQ_N_RATES]; // NULL: use vec_dot
    tcq_unpack_group_t unpack_group[TCQ_N_RATES]; // with dot_groups
    tcq_dot_groups_t   dot_groups  [TCQ_N_RATES]; // blocks of 256; NULL: rows are not repacked
    void        (* multiply)(const tcq_tile * tile, const void * panel, float c[TCQ_TILE][TCQ_PANEL]); // NULL: use vec_dot
} tcq_kernels;

extern const tcq_kernels tcq_kernels_neon;
extern const tcq_kernels tcq_kernels_dotprod;
extern const tcq_kernels tcq_kernels_i8mm;    // and dotprod
extern const tcq_kernels tcq_kernels_avx2;
extern const tcq_kernels tcq_kernels_gfni;    // AVX2 and GFNI
extern const tcq_kernels tcq_kernels_avxvnni; // AVX2, GFNI and AVX-VNNI
extern const tcq_kernels tcq_kernels_avx512;  // AVX-512 with BW, DQ, VL, VBMI and VNNI, and GFNI

#define TCQ_MAX_KERNELS 8

// the kernels that this CPU can run, best first, plain C last; returns how many
GGML_BACKEND_API int ggml_tcq_cpu_kernels(const tcq_kernels ** list);

// what ggml_tcq_cpu_init chose: the best of them, or the one that the environment variable GGML_TCQ_KERNELS names (for
// measurements and tests)
const tcq_kernels * tcq_kernels_in_use(void);

// one row of weights into row `row` of a tile; a group, in its order, into rows from `row` on
void tcq_unpack_row  (const tcq_kernels * kernels, const tcq_format * f, const uint8_t * x, int row, tcq_tile * tile);
void tcq_unpack_group(const tcq_kernels * kernels, const tcq_format * f, const uint8_t * x, int row, tcq_tile * tile);

#ifdef __cplusplus
}
#endif
