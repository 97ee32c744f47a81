// TCQ encoder: scale, outlier slots and trellis path of each block, minimizing importance-weighted squared error.

#include "ggml-tcq.h"
#include "ggml-tcq-tables.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define TCQ_STATES 256
#define TCQ_WARMUP  64 // steps after which the best path no longer depends on where it started
#define TCQ_ROUNDS   3 // scale refits

// a weight beyond this (in units of the block's rms) is a candidate for a slot; by rate
static const float tcq_slot_threshold[6] = { 0.0f, 1.5f, 1.9f, 2.4f, 2.7f, 2.9f };

// the largest level in units of the rms of the weights that it was fitted to; by rate
static const float tcq_level_reach[6] = { 0.0f, 1.518f, 2.158f, 2.699f, 3.147f, 3.468f };

typedef struct {
    float   metric[QK_TCQ][8]; // cost of the best level of each subset, by time
    uint8_t lo    [QK_TCQ][8]; // that level's lo bits
    uint8_t from  [QK_TCQ + TCQ_WARMUP][TCQ_STATES]; // survivors: the predecessor's top bit
} tcq_trellis;

static void tcq_step(const float * cost, float * next, const float * metric, uint8_t * from) {
    for (int s = 0; s < TCQ_STATES; ++s) {
        const float a = cost[s >> 1]                  + metric[tcq_subset[s]];
        const float b = cost[(s >> 1) + TCQ_STATES/2] + metric[tcq_subset[s + TCQ_STATES]];
        from[s] = b < a;
        next[s] = b < a ? b : a;
    }
}

static int tcq_argmin(const float * cost) {
    int best = 0;
    for (int s = 1; s < TCQ_STATES; ++s) {
        if (cost[s] < cost[best]) {
            best = s;
        }
    }
    return best;
}

// the cheapest cyclic path for targets x (in level units) with weights w, both in chain order;
// writes path bits and lo bits by time
static void tcq_search_path(const tcq_format * f, tcq_trellis * t, const float * x, const float * w, uint8_t * u, uint8_t * lo) {
    const int n = f->block_size;

    for (int i = 0; i < n; ++i) {
        for (int z = 0; z < 8; ++z) {
            float best = FLT_MAX;
            for (int l = 0; l < f->n_lo; ++l) {
                const float e = x[i] - f->levels[z | l << 3];
                if (e*e < best) {
                    best        = e*e;
                    t->lo[i][z] = (uint8_t) l;
                }
            }
            t->metric[i][z] = w[i]*best;
        }
    }

    float   buf[2][TCQ_STATES] = {{ 0 }};
    float * cost = buf[0];
    float * next = buf[1];

#define TCQ_STEP(i, from) { tcq_step(cost, next, t->metric[i], from); float * swap = cost; cost = next; next = swap; }

    // state at the seam: warm up before the block, run through it and TCQ_WARMUP steps beyond, trace back to its end
    for (int i = n - TCQ_WARMUP; i < n;              ++i) TCQ_STEP(i,            t->from[0])
    for (int i = 0;              i < n;              ++i) TCQ_STEP(i,            t->from[i])
    for (int i = 0;              i < TCQ_WARMUP;     ++i) TCQ_STEP(i,            t->from[n + i])
    int s = tcq_argmin(cost);
    for (int i = n + TCQ_WARMUP - 1; i >= n; --i) {
        s = s >> 1 | t->from[i][s] << 7;
    }
    const int seam = s;

    // the cheapest path that starts and ends there
    for (s = 0; s < TCQ_STATES; ++s) {
        cost[s] = s == seam ? 0.0f : 1e30f;
    }
    for (int i = 0; i < n; ++i) TCQ_STEP(i, t->from[i])

#undef TCQ_STEP

    s = seam;
    for (int i = n - 1; i >= 0; --i) {
        const int window = t->from[i][s] << 8 | s;
        u [i] = s & 1;
        lo[i] = t->lo[i][tcq_subset[window]];
        s = window >> 1;
    }
}

// the smallest e5m3 byte whose scale is nearest to d
static uint8_t tcq_nearest_scale(float d) {
    int lo = 0, hi = 255;
    while (lo < hi) {
        const int mid = (lo + hi)/2;
        if (tcq_scale[mid] < d) { lo = mid + 1; } else { hi = mid; }
    }
    return (uint8_t) (lo > 0 && d - tcq_scale[lo - 1] < tcq_scale[lo] - d ? lo - 1 : lo);
}

// slots, greedily by what they save beyond the threshold; every slot that a block has adds something, so one
// that nothing needs goes where it costs least. Subtracts the slots from x (level units).
static void tcq_place_slots(const tcq_format * f, float * x, const float * w, float threshold, uint8_t * slots) {
    const int n_slots = f->block_size == QK_TCQ ? 2 : 1;

    if (n_slots == 2) {
        slots[2] = 0;
    }
    int n_used = 0;
    for (; n_used < n_slots; ++n_used) {
        float best_gain = n_slots == 2 ? 0.0f : -FLT_MAX;
        int   best_j = -1, best_v = 0;
        for (int j = 0; j < f->block_size; ++j) {
            const float m = fabsf(x[j]);
            if (m < threshold && n_slots == 2) {
                continue;
            }
            int v = 0;
            for (int i = 1; i < f->n_mags; ++i) {
                if (fabsf(m - f->slots[i]) < fabsf(m - f->slots[v])) {
                    v = i;
                }
            }
            const float before = fmaxf(m - threshold, 0.0f);
            const float after  = fmaxf(fabsf(m - f->slots[v]) - threshold, 0.0f);
            const float gain   = w[j]*(before*before - after*after) + 1e-12f*w[j]*m;
            if (gain > best_gain) {
                best_gain = gain;
                best_j    = j;
                best_v    = x[j] < 0.0f ? v + f->n_mags : v;
            }
        }
        if (best_j < 0) {
            break;
        }
        x[best_j] -= f->slots[best_v];
        if (n_slots == 2) {
            slots[n_used] = (uint8_t) best_j;
            slots[2]     |= (uint8_t) (best_v << 4*n_used);
        } else {
            slots[0] = (uint8_t) (best_j | best_v << 6);
        }
    }
    if (n_slots == 2 && n_used == 0) { // two slots that cancel
        slots[0] = slots[1] = 0;
        slots[2] = 0x80;
    } else if (n_slots == 2 && n_used == 1) { // the second slot nudges the weight that it moves towards zero
        int best = 0;
        for (int j = 1; j < f->block_size; ++j) {
            if (fabsf(fabsf(x[j]) - f->slots[0]/2) < fabsf(fabsf(x[best]) - f->slots[0]/2)) {
                best = j;
            }
        }
        const int v = x[best] < 0.0f ? f->n_mags : 0;
        x[best] -= f->slots[v];
        slots[1]  = (uint8_t) best;
        slots[2] |= (uint8_t) (v << 4);
    }
}

static void tcq_pack(const tcq_format * f, uint8_t * block, const uint8_t * u, const uint8_t * lo, const uint8_t * slots, uint8_t scale) {
    const int n_bytes = f->block_size/8;

    memset(block, 0, f->type_size);
    for (int i = 0; i < f->block_size; ++i) {
        block[i >> 3] |= (uint8_t) (u[i] << (i & 7));
        const int j = n_bytes*(i & 7) + (i >> 3);
        for (int b = 0; b < f->rate - 1; ++b) {
            const int position = f->lo_position[j*(f->rate - 1) + b];
            block[n_bytes + (position >> 3)] |= (uint8_t) ((lo[i] >> b & 1) << (position & 7));
        }
    }
    memcpy(block + f->rate*n_bytes, slots, f->type_size - 1 - f->rate*n_bytes);
    block[f->type_size - 1] = scale;
}

static void tcq_encode_block(const tcq_format * f, tcq_trellis * t, const float * x, const float * importance, uint8_t * block) {
    const int   n         = f->block_size;
    const float reach     = 63.0f/tcq_level_reach[f->rate]; // level units per rms
    const float threshold = tcq_slot_threshold[f->rate]*reach;

    float w[QK_TCQ];
    float norm = 0.0f, sum_w = 0.0f, top = 0.0f, second = 0.0f;
    for (int j = 0; j < n; ++j) {
        w[j] = importance ? importance[j] : 1.0f;
        const float e = w[j]*x[j]*x[j];
        norm  += e;
        sum_w += w[j];
        if (e > top) { second = top; top = e; } else if (e > second) { second = e; }
    }
    memset(block, 0, f->type_size);
    if (!(norm > 0.0f)) {
        return; // scale 0 is an all-zero block
    }
    // weights whose importance is zero everywhere still deserve a path: fall back to plain error
    float d = sqrtf(fmaxf(norm - top - (n == QK_TCQ ? second : 0.0f), 1e-6f*norm)/sum_w)/reach;

    float best = FLT_MAX;
    for (int round = 0; round < TCQ_ROUNDS; ++round) {
        uint8_t scale = tcq_nearest_scale(d);
        if (scale == 0) {
            scale = 1;
        }
        d = tcq_scale[scale];

        float   target[QK_TCQ], xt[QK_TCQ], wt[QK_TCQ];
        uint8_t u[QK_TCQ], lo[QK_TCQ], slots[3], candidate[sizeof(block_tcq5)];
        int16_t q[QK_TCQ];
        for (int j = 0; j < n; ++j) {
            target[j] = x[j]/d;
        }
        tcq_place_slots(f, target, w, threshold, slots);
        for (int i = 0; i < n; ++i) {
            const int j = n/8*(i & 7) + (i >> 3);
            xt[i] = target[j];
            wt[i] = w[j];
        }
        tcq_search_path(f, t, xt, wt, u, lo);
        tcq_pack(f, candidate, u, lo, slots, scale);

        tcq_unpack_block(f, candidate, q);
        float error = 0.0f, xq = 0.0f, qq = 0.0f;
        for (int j = 0; j < n; ++j) {
            const float e = x[j] - d*q[j];
            error += w[j]*e*e;
            xq    += w[j]*x[j]*q[j];
            qq    += w[j]*q[j]*q[j];
        }
        if (error < best) {
            best = error;
            memcpy(block, candidate, f->type_size);
        }
        if (!(xq > 0.0f)) {
            break;
        }
        d = xq/qq;
    }
}

void tcq_encode_rows(const tcq_format * f, const float * src, uint8_t * dst, int64_t nrows, int64_t n_per_row, const float * importance) {
    tcq_trellis t;
    for (int64_t r = 0; r < nrows; ++r) {
        for (int64_t j = 0; j < n_per_row; j += f->block_size) {
            tcq_encode_block(f, &t, src + r*n_per_row + j, importance ? importance + j : NULL, dst);
            dst += f->type_size;
        }
    }
}
