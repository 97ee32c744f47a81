// TCQ encoder: scale, outlier slots and trellis path of each block, minimizing importance-weighted squared error.
// Thread-safe: all state lives on the stack. The same bytes on every machine: no step depends on the instruction set,
// provided that the compiler does not contract multiplications and additions (-ffp-contract=off).

#include "ggml-tcq-trellis.h"
#include "ggml-tcq-tables.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define TCQ_ROUNDS 3 // scale refits

// a weight beyond this (in units of the block's rms) is a candidate for a slot; by rate
static const float tcq_slot_threshold[6] = { 0.0f, 1.5f, 1.9f, 2.4f, 2.7f, 2.9f };

// the block being encoded, and the best encoding of it so far
typedef struct {
    tcq_trellis  trellis;
    const float * x;
    float   w[QK_TCQ];   // importance
    float   unit;        // weighted squared error (level units) that costs 1 in the trellis
    float   best_error;
    uint8_t u [QK_TCQ];  // path bits and lo bits by time, slots, scale
    uint8_t lo[QK_TCQ];
    uint8_t slots[3];
    uint8_t scale;
} tcq_encoder;

// the e5m3 byte whose scale is nearest to d, at least 1
static int tcq_nearest_scale(float d) {
    int lo = 1, hi = 255;
    while (lo < hi) {
        const int mid = (lo + hi)/2;
        if (tcq_scale[mid] < d) { lo = mid + 1; } else { hi = mid; }
    }
    return lo > 1 && d - tcq_scale[lo - 1] < tcq_scale[lo] - d ? lo - 1 : lo;
}

// slots, greedily by what they save beyond the threshold. A slot that a block has adds something always, so one that
// nothing needs goes to a weight near half of its magnitude, which it merely mirrors; two such slots cancel.
// Subtracts the slots from x (level units).
static void tcq_place_slots(const tcq_format * f, float * x, const float * w, float threshold, uint8_t * slots) {
    const int n_slots = f->block_size == QK_TCQ ? 2 : 1;

    int at[2], value[2], n_used = 0;
    for (; n_used < n_slots; ++n_used) {
        float best_gain = 0.0f;
        for (int j = 0; j < f->block_size; ++j) {
            const float m = fabsf(x[j]);
            if (m < threshold) {
                continue;
            }
            int v = 0;
            for (int i = 1; i < f->n_mags; ++i) {
                if (fabsf(m - f->slots[i]) < fabsf(m - f->slots[v])) {
                    v = i;
                }
            }
            const float before = m - threshold;
            const float after  = fmaxf(fabsf(m - f->slots[v]) - threshold, 0.0f);
            const float gain   = w[j]*(before*before - after*after);
            if (gain > best_gain) {
                best_gain = gain;
                at   [n_used] = j;
                value[n_used] = x[j] < 0.0f ? v + f->n_mags : v;
            }
        }
        if (!(best_gain > 0.0f)) {
            break;
        }
        x[at[n_used]] -= f->slots[value[n_used]];
    }
    if (n_used == 0 && n_slots == 2) {
        at[0] = at[1] = 0;
        value[0] = 0;
        value[1] = f->n_mags;
    } else if (n_used < n_slots) {
        const float half = 0.5f*f->slots[0];
        int best = 0;
        for (int j = 1; j < f->block_size; ++j) {
            if (fabsf(fabsf(x[j]) - half) < fabsf(fabsf(x[best]) - half)) {
                best = j;
            }
        }
        at   [n_used] = best;
        value[n_used] = x[best] < 0.0f ? f->n_mags : 0;
        x[best] -= f->slots[value[n_used]];
    }

    if (n_slots == 2) {
        slots[0] = (uint8_t) at[0];
        slots[1] = (uint8_t) at[1];
        slots[2] = (uint8_t) (value[0] | value[1] << 4);
    } else {
        slots[0] = (uint8_t) (at[0] | value[0] << 6);
    }
}

// what the slots add, in level units
static void tcq_add_slots(const tcq_format * f, const uint8_t * slots, int16_t * q) {
    if (f->block_size == QK_TCQ) {
        q[slots[0]] += f->slots[slots[2] & 0xf];
        q[slots[1]] += f->slots[slots[2] >> 4];
    } else {
        q[slots[0] & 0x3f] += f->slots[slots[0] >> 6];
    }
}

static void tcq_pack(const tcq_encoder * e, uint8_t * block) {
    const tcq_format * f = e->trellis.f;
    const int n_bytes = f->block_size/8;

    memset(block, 0, f->type_size);
    for (int i = 0; i < f->block_size; ++i) {
        block[i >> 3] |= (uint8_t) (e->u[i] << (i & 7));
        const int j = n_bytes*(i & 7) + (i >> 3);
        for (int b = 0; b < f->rate - 1; ++b) {
            const int position = f->lo_position[j*(f->rate - 1) + b];
            block[n_bytes + (position >> 3)] |= (uint8_t) ((e->lo[i] >> b & 1) << (position & 7));
        }
    }
    memcpy(block + f->rate*n_bytes, e->slots, f->type_size - 1 - f->rate*n_bytes);
    block[f->type_size - 1] = e->scale;
}

// the cheapest cyclic path: the state at the seam is that of the best path through the settling steps on both sides
static void tcq_search_cycle(tcq_trellis * t, const float * x, const float * w, float unit, uint8_t * u, uint8_t * lo) {
    const int n = t->f->block_size;

    tcq_trellis_set_targets(t, TCQ_SETTLE, x, w, n, unit);
    memcpy(t->metric[0], t->metric[n], sizeof(t->metric[0])*TCQ_SETTLE);
    const int seam = tcq_trellis_search(t, 0, 2*TCQ_SETTLE, -1, -1, TCQ_SETTLE, NULL, NULL);
    tcq_trellis_search(t, TCQ_SETTLE, n, seam, seam, n, u, lo);
}

// encodes at one scale, keeps the encoding if it is the best so far; returns the scale that would fit its levels best
static float tcq_try_scale(tcq_encoder * e, int scale) {
    const tcq_format * f = e->trellis.f;
    const int   n         = f->block_size;
    const float d         = tcq_scale[scale];
    const float threshold = tcq_slot_threshold[f->rate]*tcq_level_rms(f);

    float   target[QK_TCQ], xt[QK_TCQ], wt[QK_TCQ];
    uint8_t u[QK_TCQ], lo[QK_TCQ], slots[3];
    int16_t q[QK_TCQ];

    for (int j = 0; j < n; ++j) {
        target[j] = e->x[j]/d;
    }
    tcq_place_slots(f, target, e->w, threshold, slots);
    for (int i = 0; i < n; ++i) {
        const int j = n/8*(i & 7) + (i >> 3);
        xt[i] = target[j];
        wt[i] = e->w[j];
    }
    tcq_search_cycle(&e->trellis, xt, wt, e->unit, u, lo);

    unsigned window = 0;
    for (int i = n - 8; i < n; ++i) {
        window = window << 1 | u[i];
    }
    for (int i = 0; i < n; ++i) {
        window = (window << 1 | u[i]) & 0x1ff;
        q[n/8*(i & 7) + (i >> 3)] = f->levels[tcq_subset[window] | lo[i] << 3];
    }
    tcq_add_slots(f, slots, q);

    float error = 0.0f, xq = 0.0f, qq = 0.0f;
    for (int j = 0; j < n; ++j) {
        const float v = (float) q[j], r = e->x[j] - d*v;
        error += e->w[j]*r*r;
        xq    += e->w[j]*e->x[j]*v;
        qq    += e->w[j]*v*v;
    }
    if (error < e->best_error) {
        e->best_error = error;
        e->scale      = (uint8_t) scale;
        memcpy(e->u,     u,     sizeof(u));
        memcpy(e->lo,    lo,    sizeof(lo));
        memcpy(e->slots, slots, sizeof(slots));
    }
    return xq > 0.0f ? xq/qq : d;
}

static void tcq_encode_block(tcq_encoder * e, const float * x, const float * importance, uint8_t * block) {
    const tcq_format * f = e->trellis.f;
    const int   n   = f->block_size;
    const float rms = tcq_level_rms(f);

    float norm = 0.0f, sum_w = 0.0f, top = 0.0f, second = 0.0f;
    for (int j = 0; j < n; ++j) {
        e->w[j] = importance ? importance[j] : 1.0f;
        const float energy = e->w[j]*x[j]*x[j];
        norm  += energy;
        sum_w += e->w[j];
        if (energy > top) { second = top; top = energy; } else if (energy > second) { second = energy; }
    }
    if (!(norm > 0.0f)) {
        memset(block, 0, f->type_size); // scale 0 is an all-zero block
        return;
    }

    e->x          = x;
    e->unit       = sum_w/n*rms*rms/(float) (1 << 2*f->rate)/32.0f; // 32 for an average step
    e->best_error = FLT_MAX;

    float d = sqrtf(fmaxf(norm - top - (n == QK_TCQ ? second : 0.0f), 1e-6f*norm)/sum_w)/rms;
    for (int round = 0; round < TCQ_ROUNDS; ++round) {
        d = tcq_try_scale(e, tcq_nearest_scale(d));
    }
    tcq_pack(e, block);
}

void tcq_encode_rows(const tcq_format * f, const float * src, uint8_t * dst, int64_t nrows, int64_t n_per_row, const float * importance) {
    tcq_encoder e;
    tcq_trellis_init(&e.trellis, f);

    for (int64_t r = 0; r < nrows; ++r) {
        for (int64_t j = 0; j < n_per_row; j += f->block_size) {
            tcq_encode_block(&e, src + r*n_per_row + j, importance ? importance + j : NULL, dst);
            dst += f->type_size;
        }
    }
}
