// The trellis search behind the TCQ encoder: the cheapest path through one chain, or through a section of one.
// Internal to the encoder. Costs are 16-bit integers, so every instruction set finds the same path, bit for bit.

#pragma once

#include "ggml-tcq.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TCQ_STATES    256
#define TCQ_SETTLE     64 // steps after which the best path no longer depends on where it started
#define TCQ_MAX_STEPS (QK_TCQ + TCQ_SETTLE)

// the trellis in one direction of time
typedef struct {
    uint8_t subset [2*TCQ_STATES]; // by window
    uint8_t pattern[8][64];        // for byte shuffles of 8 metrics: byte pairs of metric[subset[2m] ^ k], m = 0..31
} tcq_code;

// advances the costs of all states by n steps (a multiple of 8)
typedef void (*tcq_advance_t)(const tcq_code * code, uint16_t * cost, const uint16_t (*metric)[8],
                              uint32_t (*survivors)[TCQ_STATES/32], int n);

typedef struct tcq_trellis tcq_trellis;

// step costs for targets x (level units) with weights w, n of them in chain order, stored from step `first` on;
// `unit` is the weighted squared error that costs 1
typedef void (*tcq_set_targets_t)(tcq_trellis * t, int first, const float * x, const float * w, int n, float unit);

// one search at a time: each encoder thread has one of these on its stack (35 KB)
struct tcq_trellis {
    const tcq_format * f;
    tcq_advance_t      advance;
    tcq_set_targets_t  set_targets;
    tcq_code           forward;
    tcq_code           backward;
    float    level [256][8];                          // nearest level of every subset, by floor(2x) + 128
    uint8_t  lo    [256][8];                          // that level's lo bits
    uint16_t metric[TCQ_MAX_STEPS][8];                // cost of a step, by time and subset
    uint8_t  step_lo[TCQ_MAX_STEPS][8];               // lo bits that reach that cost
    uint32_t survivors[TCQ_MAX_STEPS][TCQ_STATES/32]; // the top bit that the better predecessor had, by time and state
    uint16_t cost[TCQ_STATES];
    uint8_t  mirrored[TCQ_STATES];                    // by state: the same seen backwards, its newest bit the oldest
};

void tcq_trellis_init(tcq_trellis * t, const tcq_format * f);

// n steps (a multiple of 8) from step `first` on; start and end are states, or -1 for any.
// Writes the path bit and the lo bits of the first n_keep steps (NULL: not wanted) and their cost in all steps;
// returns the state after n_keep steps.
int tcq_trellis_search(tcq_trellis * t, int first, int n, int start, int end, int n_keep,
                       uint8_t * u, uint8_t * lo, uint32_t * path_cost);

// a cyclic path of block_size steps for targets x with weights w: the cheapest of those through the n_seams
// most promising states at the seam
void tcq_trellis_search_cycle(tcq_trellis * t, const float * x, const float * w, float unit, int n_seams,
                              uint8_t * u, uint8_t * lo);

// the n most promising states between step first - 1 and step first, by TCQ_SETTLE steps on both sides
void tcq_trellis_seams(tcq_trellis * t, int first, int n, uint8_t * seams);

// weighted squared error (level units) that should cost 1 in a search with weights w [n]: an average step then costs
// some 32, which loses less than 0.01 dB. Roots, so that a few great weights leave resolution for the others
float tcq_cost_unit(const tcq_format * f, const float * w, int n);

// rms of the weights that the levels suit, in level units
float tcq_level_rms(const tcq_format * f);

// the instruction set in use: 0 scalar, 1 AVX2 or NEON, 2 AVX-512
int tcq_trellis_simd(void);

// caps it, for tests and benchmarks; returns what will run
GGML_API int tcq_trellis_cap_simd(int cap);

#ifdef __cplusplus
}
#endif
