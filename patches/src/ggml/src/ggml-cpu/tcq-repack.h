// TCQ rows of 256-blocks repacked for kernels that multiply eight at a time (dot_groups): the layout, which is no file's, and
// the buffer type into which models are loaded where the kernels in use have a dot_groups.
//
// A group's block holds one block of each row. For i = 0..7 there are `rate` vectors of 32 bytes; byte 4r + c of each belongs
// to row r and to path byte y = 8c + i. The first vector has the path byte, and the others what is stored of its weights,
// k = 0..7:
//
//   rates 2 to 4   first a vector of signs, set below zero, then one for each lo bit but the last, mirrored (complemented
//                  where the level is above zero); k is at bit 3 - k/2, or 7 - k/2 if it is odd
//   rate 5         vector p has all lo bits of k = 2p in its lower nibble, those of k = 2p + 1 in the upper one
//
// Then come, by row, the scales and the slots. Weights and columns are in the order of the vectors: i, k, c.

#pragma once

#include "ggml-tcq.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TCQ_GROUP = 8 }; // rows

typedef struct {
    float   d    [TCQ_GROUP];
    uint8_t slots[TCQ_GROUP][4]; // three positions, then a quarter of tcq_slot_values
} tcq_group_side;

static inline size_t tcq_group_block_size(int rate) {
    return 8*32*rate + sizeof(tcq_group_side);
}

// a block of weights or of a column: where weight j is in a group's order
static inline int tcq_group_position(int j) {
    const int k = j >> 5, c = j >> 3 & 3, i = j & 7;
    return 32*i + 4*k + c;
}

// a block of a column to a group's order
void tcq_order_for_group(const int8_t * in, int8_t * out);

// rows [n_rows][n_blocks] of blocks of 256, n_rows a multiple of TCQ_GROUP, to groups [n_rows/TCQ_GROUP][n_blocks]
void tcq_repack(const tcq_format * f, int64_t n_rows, int64_t n_blocks, const uint8_t * x, uint8_t * out);

// hook: the buffer type, NULL if the kernels in use take rows as they are (tcq-repack-buffer.cpp)
struct ggml_backend_buffer_type * ggml_backend_cpu_tcq_buffer_type(void);

// whether the tensor lies in such a buffer
bool ggml_tcq_is_repacked(const struct ggml_tensor * tensor);

#ifdef __cplusplus
}
#endif
