// The trellis search behind the TCQ encoder: the cheapest path through one chain, or through a section of one.
// Internal to the encoder. Costs are 16-bit integers, so every instruction set finds the same path, bit for bit.
// ggml-tcq-encode.h explains the short names.

#pragma once

#include "ggml-tcq.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TCQ_STATES    256
#define TCQ_SETTLE     64 // steps after which the best path no longer depends on where it started
#define TCQ_MAX_STEPS (QK_TCQ + TCQ_SETTLE)
#define TCQ_COST_ROWS (QK_TCQ + 4)  // one search in a block of 256, or four in one of 64

#define TCQ_MAX_METRIC  4095        // of a step
#define TCQ_UNREACHABLE 0x8000      // more than 8 steps cost, and the cost of 8 more steps still fits in 16 bits

#if defined(_MSC_VER)
#define TCQ_ALIGN __declspec(align(64))
#else
#define TCQ_ALIGN __attribute__((aligned(64)))
#endif

// the trellis in one direction of time
typedef struct {
    uint8_t subset [2*TCQ_STATES]; // by window
    // for byte shuffles of a step's metrics: byte pairs of metric[subset[2m] ^ k], m = 0..31
    TCQ_ALIGN uint8_t pattern[TCQ_SUBSETS][64];
} tcq_code;

// costs of all states after 1, 2, .. n steps (a multiple of 8) from those in cost[0]; returns what was subtracted from
// all costs on the way. The costs also tell which predecessor was better, so nothing else is kept. Step i has
// metric[i*stride]
typedef uint32_t (*tcq_advance_t)(const tcq_code * code, uint16_t (*cost)[TCQ_STATES], const uint16_t (*metric)[TCQ_SUBSETS],
                                  int stride, int n);

typedef struct tcq_trellis tcq_trellis;

// step costs for n targets x (level units; n even) with importance w, in chain order, stored from step `first` on;
// `unit` is the weighted squared error that costs 1. Returns the cost common to all paths
typedef float (*tcq_set_targets_t)(tcq_trellis * t, int first, const float * x, const float * w, int n, float unit);

// one search at a time: every encoder thread has one of these (150 KB, too large for small stacks)
struct tcq_trellis {
    const tcq_format * f;
    tcq_advance_t      advance;
    tcq_set_targets_t  set_targets;
    tcq_code           forward;
    tcq_code           backward;
    float    nearest[256];                            // nearest level of all, by floor(2x) + 128
    float    level  [256][TCQ_SUBSETS];               // nearest level of every subset
    uint8_t  lo     [256][TCQ_SUBSETS];               // that level's lo bits
    uint16_t metric [TCQ_MAX_STEPS][TCQ_SUBSETS];     // cost of a step, by time and subset
    uint8_t  step_lo[TCQ_MAX_STEPS][TCQ_SUBSETS];     // lo bits that give that cost
    TCQ_ALIGN uint16_t cost[TCQ_COST_ROWS][TCQ_STATES];
    uint8_t  mirrored[TCQ_STATES];                    // by state: its bits reversed, the state of the backward trellis
};

void tcq_trellis_init(tcq_trellis * t, const tcq_format * f);

// n steps (a multiple of 8) from step `first` on; start and end are states, or -1 for any.
// Writes the path bit and the lo bits of the first n_keep steps; returns the state after n_keep steps.
int tcq_trellis_search(tcq_trellis * t, int first, int n, int start, int end, int n_keep, uint8_t * u, uint8_t * lo);

// targets x with importance w of a block [block_size] by time, whose path has to be cyclic; returns the common cost
float tcq_trellis_set_cycle(tcq_trellis * t, const float * x, const float * w, float unit);

// its n most promising states between the last step and the first, judged by TCQ_SETTLE steps on both sides
void tcq_trellis_seams(tcq_trellis * t, int n, uint8_t * seams);

// cost of the cheapest cyclic path through one of these seams, at most four in a block of 64 and one in a block of 256;
// *best becomes the seam's number
uint32_t tcq_trellis_search_cycle(tcq_trellis * t, const uint8_t * seams, int n_seams, int * best);

// path bits and lo bits of the path that this search found through seam k
void tcq_trellis_cycle(const tcq_trellis * t, const uint8_t * seams, int k, uint8_t * u, uint8_t * lo);

// weighted squared error (level units) that costs 1 in a search with importance w [n]: an average step then costs about
// 32, which loses less than 0.01 dB. From roots, so that a few large importances leave resolution for the others
float tcq_cost_unit(const tcq_format * f, const float * w, int n);

// the state after n steps: their last 8 path bits
TCQ_CONSTEXPR int tcq_state_after(const uint8_t * u, int n) {
    int s = 0;
    for (int i = n - 8; i < n; ++i) {
        s = s << 1 | u[i];
    }
    return s;
}

// the instruction set in use: 0 scalar, 1 AVX2 or NEON, 2 AVX-512
int tcq_trellis_simd(void);

// caps it, for tests and benchmarks, while no thread encodes; returns what will run
GGML_API int tcq_trellis_cap_simd(int cap);

#ifdef __cplusplus
}
#endif
