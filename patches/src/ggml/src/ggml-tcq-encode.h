// Encoding one block: what the plain encoder and the one with error feedback share. Internal.
//
// Names, here and in the sources: i is a time of the chain, j a weight of the block, n how many there are. x are weights
// and w their importance, xt and wt the same by time; d is a block's scale; q are weights in units of it. u are path bits
// and lo the lo bits, by time; z is a subset, s a state. f is the format, e the encoder, t the trellis or the tables.

#pragma once

#include "ggml-tcq-trellis.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TCQ_CANDIDATES  8 // weights that may get a slot
#define TCQ_SEAMS       4 // seams that a block of 64 may try
#define TCQ_RANKS       4 // choices of slots to try
#define TCQ_MOVES       6 // steps to a better scale, at most
#define TCQ_SCALES    256 // at most
#define TCQ_COST_STEP   8 // level units between the entries of tcq_marginal_cost
#define TCQ_COST_STEPS  9

// the block being encoded, and the best encoding of it so far
typedef struct {
    tcq_trellis   trellis;
    const float * x;
    float    w [QK_TCQ];
    float    wt[QK_TCQ];
    float    norm;                       // weighted squared error of zeros
    float    mse;                        // expected error, squared level units
    float    unit;                       // weighted squared error that costs 1 in the trellis, squared level units
    int      first;                      // scale to try
    int      second;                     // another one, or the same
    uint8_t  candidates[TCQ_CANDIDATES]; // the weights of most energy

    float    best_error;
    int      scale;                      // 0 before any encoding
    int      rank;                       // of the choice of slots
    uint32_t slots;
    uint8_t  seams[TCQ_SEAMS];           // the most promising ones,
    int      n_seams;                    // how many of them were searched,
    uint32_t path_cost;                  // and what their best path costs
    uint8_t  u [QK_TCQ];
    uint8_t  lo[QK_TCQ];
} tcq_encoder;

// scale, slots and path of a block: x [block_size], importance [block_size] or NULL; false if zeros are best
bool tcq_encode_block(tcq_encoder * e, const float * x, const float * importance);

// writes what the encoder holds, type_size bytes
void tcq_pack_block(const tcq_encoder * e, uint8_t * block);

// rows [nrows, n_per_row] into blocks; importance [n_per_row] or NULL
void tcq_encode_rows(const tcq_format * f, const float * src, uint8_t * dst,
                     int64_t nrows, int64_t n_per_row, const float * importance);

// everything that an encoder looks up, in one piece: for encoders on other devices
typedef struct {
    int      rate;
    int      block_size;
    int      type_size;
    int      n_scales;
    float    level_rms;
    float    mse;                           // as tcq_encoder's
    float    marginal_cost[TCQ_COST_STEPS];
    uint8_t  triples      [TCQ_RANKS][3];    // candidates that get the slots of a block of 256
    float    scale        [TCQ_SCALES];
    float    nearest      [256];              // as tcq_trellis'
    float    level        [256][TCQ_SUBSETS];
    uint8_t  lo           [256][TCQ_SUBSETS];
    uint8_t  subset       [2][2*TCQ_STATES]; // by window, forward and backward
    uint8_t  mirrored     [TCQ_STATES];
    int8_t   levels       [TCQ_SUBSETS << (TCQ_N_RATES - 1)];
    int16_t  slots        [128];
    uint16_t lo_position  [(TCQ_N_RATES - 1)*QK_TCQ];
} tcq_encoder_tables;

GGML_API void tcq_get_encoder_tables(const tcq_format * f, tcq_encoder_tables * tables);

#ifdef __cplusplus
}
#endif
