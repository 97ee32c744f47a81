// TCQ encoder: scale, outlier slots and trellis path of each block, minimizing importance-weighted squared error.
// Thread-safe: all state is a call's own. The same bytes on every machine: no step depends on the instruction set,
// provided that the compiler does not contract multiplications and additions (-ffp-contract=off).

#include "ggml-tcq-encode.h"
#include "ggml-impl.h"
#include "ggml-tcq-tables.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

// What a block costs more in all for one weight of |x| = 0, 8, .. 64 level units, in units of the mean squared error
// (measured on Gaussians, eval/experiments/tcq_marginal_cost.py); beyond 63 the squared excess comes on top. By rate
static const float tcq_marginal_cost[6][9] = {
    { 0 },
    {  0.16f,  0.11f,  0.16f,  0.33f,  0.64f,  0.96f,  1.34f,  1.89f,  1.81f },
    {  0.12f,  0.13f,  0.37f,  0.78f,  1.20f,  1.90f,  3.10f,  4.09f,  3.71f },
    {  0.02f,  0.17f,  0.65f,  1.05f,  1.99f,  3.49f,  4.46f,  7.92f,  4.81f },
    {  0.12f,  0.38f,  0.65f,  1.24f,  2.62f,  5.11f,  6.13f, 13.39f,  6.94f },
    {  0.23f,  0.63f,  0.67f,  1.33f,  2.67f,  6.01f, 11.06f, 18.37f, 15.61f },
};

// the candidates by gain that get the two slots of a block of 256, by rank of the choice
static const uint8_t tcq_pairs[TCQ_RANKS][2] = { { 0, 1 }, { 0, 2 }, { 1, 2 }, { 0, 3 } };

// one slot: what it would save, where, and which value of f->slots
typedef struct {
    float gain;
    int   at;
    int   value;
} tcq_slot;

// mean squared error of a weight that the levels suit, squared level units
static float tcq_expected_error(const tcq_format * f) {
    const float rms = tcq_level_rms(f);
    return rms*rms/(float) (1 << 2*f->rate);
}

// the e5m3 byte whose scale is nearest to d, at least 1
static int tcq_nearest_scale(float d) {
    int lo = 1, hi = 255;
    while (lo < hi) {
        const int mid = (lo + hi)/2;
        if (tcq_scale[mid] < d) { lo = mid + 1; } else { hi = mid; }
    }
    return lo > 1 && d - tcq_scale[lo - 1] < tcq_scale[lo] - d ? lo - 1 : lo;
}

static float tcq_expected_cost(const tcq_encoder * e, float x) {
    const float * at = tcq_marginal_cost[e->trellis.f->rate];
    const float   m  = fabsf(x);
    if (m < 63.0f) {
        const int i = (int) (m/8);
        return e->mse*(at[i] + (m/8 - i)*(at[i + 1] - at[i]));
    }
    return e->mse*at[8] + (m - 63.0f)*(m - 63.0f);
}

// Chooses slots by what they are expected to save and subtracts them from x (level units). Almost any weight far from
// zero gains by a slot that moves it to zero, so a block always uses all that it has, if need be two that cancel.
// rank 0 is the best choice, higher ranks are alternatives to try.
static void tcq_place_slots(const tcq_encoder * e, float * x, int rank, uint8_t * slots) {
    const tcq_format * f = e->trellis.f;

    tcq_slot best[TCQ_CANDIDATES]; // one for each candidate, by descending gain
    for (int k = 0; k < TCQ_CANDIDATES; ++k) {
        tcq_slot slot = { -FLT_MAX, e->candidates[k], 0 };
        const float m      = fabsf(x[slot.at]);
        const float before = tcq_expected_cost(e, m);
        for (int v = 0; v < f->n_mags; ++v) {
            const float gain = e->w[slot.at]*(before - tcq_expected_cost(e, m - f->slots[v]));
            if (gain > slot.gain) {
                slot.gain  = gain;
                slot.value = x[slot.at] < 0.0f ? v + f->n_mags : v;
            }
        }
        int i = k;
        for (; i > 0 && best[i - 1].gain < slot.gain; --i) {
            best[i] = best[i - 1];
        }
        best[i] = slot;
    }

    if (f->block_size == QK_TCQ) {
        tcq_slot a = best[tcq_pairs[rank][0]];
        tcq_slot b = best[tcq_pairs[rank][1]];
        if (a.gain + b.gain < 0.0f) {
            b = a;
            b.value ^= f->n_mags;
        }
        x[a.at] -= f->slots[a.value];
        x[b.at] -= f->slots[b.value];
        slots[0] = (uint8_t) a.at;
        slots[1] = (uint8_t) b.at;
        slots[2] = (uint8_t) (a.value | b.value << 4);
    } else {
        const tcq_slot a = best[rank];
        x[a.at] -= f->slots[a.value];
        slots[0] = (uint8_t) (a.at | a.value << 6);
    }
}

void tcq_add_slots(const tcq_format * f, const uint8_t * slots, int16_t * q) {
    if (f->block_size == QK_TCQ) {
        q[slots[0]] += f->slots[slots[2] & 0xf];
        q[slots[1]] += f->slots[slots[2] >> 4];
    } else {
        q[slots[0] & 0x3f] += f->slots[slots[0] >> 6];
    }
}

// targets of the trellis at one scale with one choice of slots, which are written; returns what every path costs besides
static float tcq_set_block(tcq_encoder * e, int scale, int rank, uint8_t * slots) {
    const int   n = e->trellis.f->block_size;
    const float d = tcq_scale[scale];

    float target[QK_TCQ], xt[QK_TCQ];
    for (int j = 0; j < n; ++j) {
        target[j] = e->x[j]/d;
    }
    tcq_place_slots(e, target, rank, slots);
    for (int i = 0; i < n; ++i) {
        xt[i] = target[n/8*(i & 7) + (i >> 3)];
    }
    return tcq_trellis_set_cycle(&e->trellis, xt, e->wt, e->unit);
}

// error of an encoding; *fit becomes the scale that would suit its levels best
static float tcq_block_error(const tcq_encoder * e, int scale, const uint8_t * slots, const uint8_t * u, const uint8_t * lo, float * fit) {
    const tcq_format * f = e->trellis.f;
    const int   n = f->block_size;
    const float d = tcq_scale[scale];

    int16_t  q[QK_TCQ];
    unsigned window = 0;
    for (int i = n - 8; i < n; ++i) {
        window = window << 1 | u[i];
    }
    for (int i = 0; i < n; ++i) {
        window = (window << 1 | u[i]) & 0x1ff;
        q[n/8*(i & 7) + (i >> 3)] = f->levels[tcq_subset[window] | lo[i] << 3];
    }
    tcq_add_slots(f, slots, q);

    // four sums side by side, so that a compiler may vectorize without changing their order
    float error[4] = { 0 }, xq[4] = { 0 }, qq[4] = { 0 };
    for (int j = 0; j < n; j += 4) {
        for (int k = 0; k < 4; ++k) {
            const float v = (float) q[j + k], r = e->x[j + k] - d*v;
            error[k] += e->w[j + k]*r*r;
            xq   [k] += e->w[j + k]*e->x[j + k]*v;
            qq   [k] += e->w[j + k]*v*v;
        }
    }
    const float sum_xq = (xq[0] + xq[1]) + (xq[2] + xq[3]);
    const float sum_qq = (qq[0] + qq[1]) + (qq[2] + qq[3]);
    *fit = sum_xq > 0.0f ? sum_xq/sum_qq : d;
    return (error[0] + error[1]) + (error[2] + error[3]);
}

// encodes at one scale with one choice of slots, keeps the encoding if it is the best so far;
// returns the scale that would fit its levels best, or 0 if the path's cost says that it cannot be
static float tcq_try(tcq_encoder * e, int scale, int rank, int n_seams) {
    const int   n = e->trellis.f->block_size;
    const float d = tcq_scale[scale];

    uint8_t slots[3], seams[TCQ_SEAMS], u[QK_TCQ], lo[QK_TCQ];
    int     seam;
    const float paid = tcq_set_block(e, scale, rank, slots);
    tcq_trellis_seams(&e->trellis, n == QK_TCQ ? 1 : TCQ_SEAMS, seams);
    const uint32_t path_cost = tcq_trellis_search_cycle(&e->trellis, seams, n_seams, &seam);

    // rounding made no step dearer by more than 1/2
    const float least_error = d*d*e->unit*((float) path_cost - 0.5f*n + paid);
    if (e->scale != 0 && 0.999f*least_error > e->best_error) {
        return 0.0f;
    }
    tcq_trellis_cycle(&e->trellis, seams, seam, u, lo);

    float fit;
    const float error = tcq_block_error(e, scale, slots, u, lo, &fit);
    if (error < e->best_error || e->scale == 0) {
        e->best_error = error;
        e->scale      = scale;
        e->rank       = rank;
        e->n_seams    = n_seams;
        e->path_cost  = path_cost;
        memcpy(e->u,     u,     sizeof(u));
        memcpy(e->lo,    lo,    sizeof(lo));
        memcpy(e->slots, slots, sizeof(slots));
        memcpy(e->seams, seams, sizeof(seams));
    }
    return fit;
}

// the seams of the best encoding that were not searched
static void tcq_try_other_seams(tcq_encoder * e) {
    const uint8_t * seams = e->seams + e->n_seams;

    uint8_t slots[3];
    int     seam;
    tcq_set_block(e, e->scale, e->rank, slots);
    if (tcq_trellis_search_cycle(&e->trellis, seams, TCQ_SEAMS - e->n_seams, &seam) < e->path_cost) {
        uint8_t u[QK_TCQ], lo[QK_TCQ];
        float   fit;
        tcq_trellis_cycle(&e->trellis, seams, seam, u, lo);
        const float error = tcq_block_error(e, e->scale, slots, u, lo, &fit);
        if (error < e->best_error) {
            e->best_error = error;
            memcpy(e->u,  u,  sizeof(u));
            memcpy(e->lo, lo, sizeof(lo));
        }
    }
}

void tcq_pack_block(const tcq_encoder * e, uint8_t * block) {
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
    block[f->type_size - 1] = (uint8_t) e->scale;
}

bool tcq_encode_block(tcq_encoder * e, const float * x, const float * importance) {
    const tcq_format * f = e->trellis.f;
    const int   n   = f->block_size;
    const float rms = tcq_level_rms(f);

    float norm = 0.0f;
    float energy[TCQ_CANDIDATES]; // of the candidates, descending
    int   n_candidates = 0;
    for (int j = 0; j < n; ++j) {
        e->w[j] = importance ? importance[j] : 1.0f;
        const float en = e->w[j]*x[j]*x[j];
        norm  += en;
        if (n_candidates < TCQ_CANDIDATES || en > energy[TCQ_CANDIDATES - 1]) {
            int i = n_candidates < TCQ_CANDIDATES ? n_candidates++ : TCQ_CANDIDATES - 1;
            for (; i > 0 && energy[i - 1] < en; --i) {
                energy[i] = energy[i - 1];
                e->candidates[i] = e->candidates[i - 1];
            }
            energy[i] = en;
            e->candidates[i] = (uint8_t) j;
        }
    }
    if (!(norm > 0.0f)) {
        return false;
    }

    for (int i = 0; i < n; ++i) {
        e->wt[i] = e->w[n/8*(i & 7) + (i >> 3)];
    }

    const bool wide = n == QK_TCQ;
    e->x          = x;
    e->mse        = tcq_expected_error(f);
    e->unit       = tcq_cost_unit(f, e->w, n);
    e->best_error = FLT_MAX;
    e->scale      = 0; // none yet

    // a first scale: the rms of what the slots will leave, but a slot has to reach the greatest weight; roots, or one
    // channel of great importance would decide alone
    float rest = 0.0f, rest_w = 0.0f;
    for (int j = 0; j < n; ++j) {
        if (j != e->candidates[0] && (j != e->candidates[1] || !wide)) {
            const float root = sqrtf(e->w[j]);
            rest   += root*x[j]*x[j];
            rest_w += root;
        }
    }
    const float suits   = rest > 0.0f ? sqrtf(rest/rest_w)/rms : 0.0f;
    const float reaches = fabsf(x[e->candidates[0]])/(f->slots[f->n_mags - 1] + 63);
    const int   first   = tcq_nearest_scale(suits > reaches ? suits : reaches);

    // its refit, its neighbours as long as they help, then other slots
    const int n_seams = wide ? 1 : 2; // short chains need more
    bool tried[TCQ_SCALES] = { false };
    const int refit = tcq_nearest_scale(tcq_try(e, first, 0, n_seams));
    tried[first] = true;
    if (!tried[refit]) {
        tcq_try(e, refit, 0, n_seams);
        tried[refit] = true;
    }
    for (int move = 0; move < TCQ_MOVES; ++move) {
        const int center = e->scale;
        for (int scale = center - 1; scale <= center + 1; scale += 2) {
            if (scale > 0 && scale < TCQ_SCALES && !tried[scale] && e->scale == center) {
                tcq_try(e, scale, 0, n_seams);
                tried[scale] = true;
            }
        }
    }
    const int scale = e->scale;
    for (int rank = 1; rank < TCQ_RANKS; ++rank) {
        tcq_try(e, scale, rank, 1);
    }
    if (!wide) {
        tcq_try_other_seams(e);
    }
    return e->best_error < norm; // what is too small for any scale is better zero
}

void tcq_encode_rows(const tcq_format * f, const float * src, uint8_t * dst, int64_t nrows, int64_t n_per_row, const float * importance) {
    tcq_encoder * e = ggml_aligned_malloc(sizeof(tcq_encoder));
    GGML_ASSERT(e != NULL);
    tcq_trellis_init(&e->trellis, f);

    for (int64_t r = 0; r < nrows; ++r) {
        for (int64_t j = 0; j < n_per_row; j += f->block_size) {
            if (tcq_encode_block(e, src + r*n_per_row + j, importance ? importance + j : NULL)) {
                tcq_pack_block(e, dst);
            } else {
                memset(dst, 0, f->type_size); // scale 0 is an all-zero block
            }
            dst += f->type_size;
        }
    }
    ggml_aligned_free(e, sizeof(tcq_encoder));
}

void tcq_get_encoder_tables(const tcq_format * f, tcq_encoder_tables * tables) {
    tcq_trellis * t = ggml_aligned_malloc(sizeof(tcq_trellis));
    GGML_ASSERT(t != NULL);
    tcq_trellis_init(t, f);

    memset(tables, 0, sizeof(*tables));
    tables->rate       = f->rate;
    tables->block_size = f->block_size;
    tables->type_size  = f->type_size;
    tables->n_mags     = f->n_mags;
    tables->level_rms  = tcq_level_rms(f);
    tables->mse        = tcq_expected_error(f);
    memcpy(tables->marginal_cost, tcq_marginal_cost[f->rate], sizeof(tables->marginal_cost));
    memcpy(tables->pairs,         tcq_pairs,                  sizeof(tables->pairs));
    memcpy(tables->scale,         tcq_scale,                  sizeof(tables->scale));
    memcpy(tables->level,         t->level,                   sizeof(tables->level));
    memcpy(tables->lo,            t->lo,                      sizeof(tables->lo));
    memcpy(tables->subset[0],     t->forward.subset,          sizeof(tables->subset[0]));
    memcpy(tables->subset[1],     t->backward.subset,         sizeof(tables->subset[1]));
    memcpy(tables->mirrored,      t->mirrored,                sizeof(tables->mirrored));
    memcpy(tables->levels,        f->levels,                  8*f->n_lo*sizeof(int8_t));
    memcpy(tables->slots,         f->slots,                   2*f->n_mags*sizeof(int16_t));
    if (f->rate > 1) {
        memcpy(tables->lo_position, f->lo_position, f->block_size*(f->rate - 1)*sizeof(uint16_t));
    }
    ggml_aligned_free(t, sizeof(tcq_trellis));
}
