// One block at a time: what the plain encoder and the one with error feedback share. Internal.

#pragma once

#include "ggml-tcq-trellis.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TCQ_CANDIDATES 8 // weights that may get a slot
#define TCQ_SEAMS      4 // seams that a block of 64 may try
#define TCQ_RANKS      4 // choices of slots to try
#define TCQ_MOVES      6 // steps to a better scale, at most
#define TCQ_SCALES   256

// the block being encoded, and the best encoding of it so far
typedef struct {
    tcq_trellis   trellis;
    const float * x;
    float   w[QK_TCQ];                  // importance,
    float   wt[QK_TCQ];                 // and by time
    float   mse;                        // expected error, squared level units
    float   unit;                       // weighted squared error that costs 1 in the trellis, squared level units
    uint8_t candidates[TCQ_CANDIDATES]; // the weights of most energy

    float   best_error;
    int     scale;                      // 0 before any encoding
    int     rank;                       // of the choice of slots
    uint8_t slots[3];
    uint8_t seams[TCQ_SEAMS];           // the most promising ones,
    int     n_seams;                    // how many of them were searched,
    uint32_t path_cost;                 // and what their best path costs
    uint8_t u [QK_TCQ];                 // path bits and lo bits, by time
    uint8_t lo[QK_TCQ];
} tcq_encoder;

// scale, slots and path of a block: x [block_size], importance [block_size] or NULL; false if zeros are best
bool tcq_encode_block(tcq_encoder * e, const float * x, const float * importance);

// writes what the encoder holds, type_size bytes
void tcq_pack_block(const tcq_encoder * e, uint8_t * block);

// adds what the slots say to q [block_size], in level units
void tcq_add_slots(const tcq_format * f, const uint8_t * slots, int16_t * q);

// All that an encoder looks up, in one piece: for encoders on other devices
typedef struct {
    int      rate;
    int      block_size;
    int      type_size;
    int      n_mags;
    float    level_rms;
    float    mse;                           // as tcq_encoder's
    float    marginal_cost[9];
    uint8_t  pairs        [TCQ_RANKS][2];   // candidates that get the slots of a block of 256
    float    scale        [TCQ_SCALES];
    float    level        [256][8];         // as tcq_trellis'
    uint8_t  lo           [256][8];
    uint8_t  subset       [2][2*TCQ_STATES]; // by window, forward and backward
    uint8_t  mirrored     [TCQ_STATES];
    int8_t   levels       [8 << 4];
    int16_t  slots        [16];
    uint16_t lo_position  [4*QK_TCQ];
} tcq_encoder_tables;

GGML_API void tcq_get_encoder_tables(const tcq_format * f, tcq_encoder_tables * tables);

#ifdef __cplusplus
}
#endif
