// TCQ: trellis-coded quantization with outlier slots. Blocks, dequantization and quantization.
// docs/formats.md of gguf-golf specifies the format; its constants are generated (ggml-tcq-layout.h, ggml-tcq-tables.h).

#pragma once

#include "ggml.h"
#include "ggml-tcq-layout.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// path and lo bits (R bits per weight together), then slots and scale as ggml-tcq-layout.h says
#define TCQ_DEFINE_BLOCKS(R)                                                            \
    typedef struct {                                                                    \
        uint8_t qs[32*(R)]; /* 32 bytes of path, then 32*(R - 1) of lo bits          */ \
        uint8_t side[4];    /* a little-endian word: three slots and an e4m3 scale   */ \
    } block_tcq##R;                                                                     \
    static_assert(sizeof(block_tcq##R) == 32*(R) + 4, "wrong tcq block size/padding");  \
    typedef struct {                                                                    \
        uint8_t qs[8*(R)];                                                              \
        uint8_t slot;                                                                   \
        uint8_t scale;      /* e5m3                                                  */ \
    } block_tcq##R##_64;                                                                \
    static_assert(sizeof(block_tcq##R##_64) == 8*(R) + 2, "wrong tcq_64 block size/padding");

TCQ_RATES(TCQ_DEFINE_BLOCKS)

// one type, for the code that all of them share
typedef struct {
    int              rate;
    int              block_size;  // weights
    int              type_size;   // bytes
    int              n_lo;        // lo values per subset: 2^(rate - 1)
    int              n_scales;
    float            level_rms;   // of the weights that the levels are made for, in level units
    const int8_t   * levels;      // [TCQ_SUBSETS*n_lo], index = subset | lo << TCQ_N_PARITIES
    const int16_t  * slots;       // what the slots add, at tcq_slot_index
    const float    * scales;      // [n_scales], ascending
    const uint16_t * lo_position; // [block_size*(rate - 1)], NULL at rate 1
} tcq_format;

GGML_API const tcq_format * tcq_get_format(enum ggml_type type); // NULL for any other type

// the block's weights in units of its scale: levels plus slots
GGML_API void     tcq_unpack_block(const tcq_format * f, const uint8_t * block, int16_t * w);
GGML_API float    tcq_block_scale (const tcq_format * f, const uint8_t * block);
GGML_API uint32_t tcq_block_slots (const tcq_format * f, const uint8_t * block); // for ggml-tcq-layout.h

// adds what the slots hold to w [block_size]
void tcq_add_slots(const tcq_format * f, uint32_t slots, int16_t * w);

#define TCQ_DECLARE_TYPE(name, NAME, qk)                                                                         \
    GGML_API void dequantize_row_##name     (const void  * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k); \
    GGML_API void quantize_row_##name##_ref (const float * GGML_RESTRICT x, void  * GGML_RESTRICT y, int64_t k);

TCQ_FOR_EACH_TYPE(TCQ_DECLARE_TYPE)

// rows [nrows, n_per_row] into blocks (ggml-tcq-encode.c); imatrix [n_per_row] or NULL; returns bytes
GGML_API size_t quantize_tcq(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst,
                             int64_t nrows, int64_t n_per_row, const float * imatrix);

// what error feedback needs of the Hessian H = E[x x^T] of a layer's inputs, its columns in chain order
typedef struct {
    const float * block_weights;   // [n_per_row] weight of an error once the rest of its block compensates for it
    const float * section_weights; // [n_per_row/section, section + look_ahead] likewise in a section and its look-ahead
    const float * propagation;     // [n_per_row, n_per_row] row k: correction of later columns per error of 1 in column k
    int           section;         // steps decided at once, a multiple of 8 that divides the block
    int           look_ahead;      // steps beyond, a multiple of 8
} tcq_feedback;

// the same with error feedback (ggml-tcq-feedback.c)
GGML_API size_t quantize_tcq_feedback(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst,
                                      int64_t nrows, int64_t n_per_row, const tcq_feedback * feedback);

// hooks: rows for ggml.c's type_traits, cases for the switches that list every quantized type
#define TCQ_TYPE_TRAITS_ROW(name, NAME, qk)                 \
    [GGML_TYPE_##NAME] = {                                  \
        .type_name      = #name,                            \
        .blck_size      = qk,                               \
        .type_size      = sizeof(block_##name),             \
        .is_quantized   = true,                             \
        .to_float       = dequantize_row_##name,            \
        .from_float_ref = quantize_row_##name##_ref,        \
    },
#define TCQ_TYPE_TRAITS TCQ_FOR_EACH_TYPE(TCQ_TYPE_TRAITS_ROW)

#define TCQ_TYPE_CASE(name, NAME, qk) case GGML_TYPE_##NAME:
#define TCQ_TYPE_CASES TCQ_FOR_EACH_TYPE(TCQ_TYPE_CASE)

#ifdef __cplusplus
}
#endif
