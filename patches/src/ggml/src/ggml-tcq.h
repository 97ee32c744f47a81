// TCQ: trellis-coded quantization with outlier slots. Block layouts, dequantization and quantization.
// The format is specified in docs/formats.md of gguf-golf; its constants are generated (ggml-tcq-tables.h).

#pragma once

#include "ggml.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QK_TCQ    256
#define QK_TCQ_64  64

// 256 weights: the path and the lo bits (R bits per weight together), two outlier slots, one e5m3 scale
#define TCQ_DEFINE_BLOCK(R)                                                                     \
    typedef struct {                                                                            \
        uint8_t qs[32*(R)];   /* 32 bytes of path, then 32*(R - 1) of lo bits                */ \
        uint8_t slot_pos[2];  /* positions of the two slots                                  */ \
        uint8_t slot_val;     /* their values: a nibble each, bit 3 sign, bits 0-2 magnitude */ \
        uint8_t scale;                                                                          \
    } block_tcq##R;

// 64 weights: one slot (position 6 bits, magnitude 1 bit, sign 1 bit)
#define TCQ_DEFINE_BLOCK_64(R)                                                                  \
    typedef struct {                                                                            \
        uint8_t qs[8*(R)];                                                                      \
        uint8_t slot;                                                                           \
        uint8_t scale;                                                                          \
    } block_tcq##R##_64;

TCQ_DEFINE_BLOCK(1) TCQ_DEFINE_BLOCK(2) TCQ_DEFINE_BLOCK(3) TCQ_DEFINE_BLOCK(4) TCQ_DEFINE_BLOCK(5)
TCQ_DEFINE_BLOCK_64(1) TCQ_DEFINE_BLOCK_64(2) TCQ_DEFINE_BLOCK_64(3) TCQ_DEFINE_BLOCK_64(4) TCQ_DEFINE_BLOCK_64(5)

// one rate in one packing, for the code that all types share
typedef struct {
    int              rate;
    int              block_size;  // weights
    int              type_size;   // bytes
    int              n_lo;        // lo values per subset: 2^(rate - 1)
    int              n_mags;      // slot magnitudes
    const int8_t   * levels;      // [8*n_lo], index = subset | lo << 3
    const int16_t  * slots;       // [2*n_mags], by magnitude index | sign*n_mags
    const uint16_t * lo_position; // [block_size*(rate - 1)], NULL at rate 1
} tcq_format;

GGML_API const tcq_format * tcq_get_format(enum ggml_type type); // NULL for any other type

// the block's weights in units of its scale: levels plus slots
GGML_API void  tcq_unpack_block(const tcq_format * f, const uint8_t * block, int16_t * w);
GGML_API float tcq_block_scale (const tcq_format * f, const uint8_t * block);

GGML_API size_t quantize_tcq(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst,
                             int64_t nrows, int64_t n_per_row, const float * imatrix);

#define TCQ_FOR_EACH_TYPE(X) \
    X(tcq1,    TCQ1,    256) X(tcq2,    TCQ2,    256) X(tcq3,    TCQ3,    256) X(tcq4,    TCQ4,    256) X(tcq5,    TCQ5,    256) \
    X(tcq1_64, TCQ1_64,  64) X(tcq2_64, TCQ2_64,  64) X(tcq3_64, TCQ3_64,  64) X(tcq4_64, TCQ4_64,  64) X(tcq5_64, TCQ5_64,  64)

#define TCQ_DECLARE_TYPE(name, NAME, qk)                                                                       \
    GGML_API void dequantize_row_##name     (const void  * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k); \
    GGML_API void quantize_row_##name##_ref (const float * GGML_RESTRICT x, void  * GGML_RESTRICT y, int64_t k);

TCQ_FOR_EACH_TYPE(TCQ_DECLARE_TYPE)

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

// the encoder (ggml-tcq-encode.c): rows [nrows, n_per_row] into blocks; importance [n_per_row] or NULL
void tcq_encode_rows(const tcq_format * f, const float * src, uint8_t * dst,
                     int64_t nrows, int64_t n_per_row, const float * importance);

// what error feedback needs of the Hessian H = E[x x^T] of a layer's inputs, its columns in chain order
typedef struct {
    const float * block_weights;   // [n_per_row] what an error costs if the rest of its block can still answer
    const float * section_weights; // [n_per_row/section, section + look_ahead] the same in a section and its look-ahead
    const float * propagation;     // [n_per_row, n_per_row] row k: what later columns lose for an error of 1 in column k
    int           section;         // steps decided at once, a multiple of 8 that divides the block
    int           look_ahead;      // steps beyond, a multiple of 8
} tcq_feedback;

// rows of a TCQ type with error feedback (ggml-tcq-feedback.c); returns bytes
GGML_API size_t quantize_tcq_feedback(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst,
                                      int64_t nrows, int64_t n_per_row, const tcq_feedback * feedback);

#ifdef __cplusplus
}
#endif
