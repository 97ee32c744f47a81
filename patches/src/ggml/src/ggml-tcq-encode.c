// TCQ encoder: scale, outlier slots and trellis path of each block, minimizing importance-weighted squared error.
// Thread-safe: all state belongs to one call. The same bytes on every machine: no step depends on the instruction set,
// provided that the compiler does not contract multiplications and additions (-ffp-contract=off).

#include "ggml-tcq-encode.h"
#include "ggml-impl.h"
#include "ggml-tcq-slots.h"
#include "ggml-tcq-tables.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

// the candidates by gain that get the three slots of a block of 256, by rank of the choice
static const uint8_t tcq_triples[TCQ_RANKS][3] = { { 0, 1, 2 }, { 0, 1, 3 }, { 0, 2, 3 }, { 1, 2, 3 } };

// mean squared error of the weights that the levels are made for, squared level units
static float tcq_expected_error(const tcq_format * f) {
    return f->level_rms*f->level_rms/(float) (1 << 2*f->rate);
}

// the number of the scale that is nearest to d, at least 1
static int tcq_nearest_scale(const tcq_format * f, float d) {
    int lo = 1, hi = f->n_scales - 1;
    while (lo < hi) {
        const int mid = (lo + hi)/2;
        if (f->scales[mid] < d) { lo = mid + 1; } else { hi = mid; }
    }
    return lo > 1 && d - f->scales[lo - 1] < f->scales[lo] - d ? lo - 1 : lo;
}

static float tcq_expected_cost(const tcq_encoder * e, float x) {
    const float * cost = tcq_marginal_cost[e->trellis.f->rate - 1];
    const float   m    = fabsf(x);
    if (m < TCQ_MAX_LEVEL) {
        const int i = (int) (m/TCQ_COST_STEP);
        return e->mse*(cost[i] + (m/TCQ_COST_STEP - i)*(cost[i + 1] - cost[i]));
    }
    const float excess = m - TCQ_MAX_LEVEL;
    return e->mse*cost[TCQ_COST_STEPS - 1] + excess*excess;
}

// the candidates by what a slot of one of n magnitudes at each is expected to save, best first; x in level units
static void tcq_rank_slots(const tcq_encoder * e, const float * x, const int * magnitudes, int n, tcq_slot * best) {
    for (int k = 0; k < TCQ_CANDIDATES; ++k) {
        tcq_slot slot = { -FLT_MAX, e->candidates[k], 0, 0 };
        const float m      = fabsf(x[slot.at]);
        const float before = tcq_expected_cost(e, m);
        slot.negative = x[slot.at] < 0.0f;
        for (int v = 0; v < n; ++v) {
            const float gain = e->w[slot.at]*(before - tcq_expected_cost(e, m - magnitudes[v]));
            if (gain > slot.gain) {
                slot.gain  = gain;
                slot.value = v;
            }
        }
        int i = k;
        for (; i > 0 && best[i - 1].gain < slot.gain; --i) {
            best[i] = best[i - 1];
        }
        best[i] = slot;
    }
}

static uint32_t tcq_choose_slots(const tcq_encoder * e, const float * x, int rank) {
    const tcq_format * f = e->trellis.f;

    tcq_slot best[TCQ_CANDIDATES];
    if (f->block_size != QK_TCQ) {
        const int magnitudes[2] = { f->slots[0], f->slots[1] };
        tcq_rank_slots(e, x, magnitudes, 2, best);
        return best[rank].at | best[rank].value << 6 | best[rank].negative << 7;
    }
    const int value = f->slots[0];
    tcq_rank_slots(e, x, &value, 1, best);

    const tcq_slot a = best[tcq_triples[rank][0]], b = best[tcq_triples[rank][1]], c = best[tcq_triples[rank][2]];
    uint32_t slots = tcq_join_slots(a, b, c);
    float    gain  = a.gain + b.gain + c.gain;

    for (int m = 0; m < 2; ++m) {
        tcq_slot  greats[TCQ_CANDIDATES];
        const int magnitude = f->slots[tcq_slot_index(QK_TCQ, (uint32_t) m << 23, 0)];
        tcq_rank_slots(e, x, &magnitude, 1, greats);

        for (int k = 0, left = rank; k < TCQ_CANDIDATES; ++k) {
            const uint32_t ahead = (best[k].at - greats[0].at) & 0xff;
            if (ahead > 0 && ahead < 128 && left-- == 0 && greats[0].gain + best[k].gain > gain) {
                gain  = greats[0].gain + best[k].gain;
                slots = tcq_join_great(greats[0], m, best[k]);
            }
        }
        const tcq_slot second = greats[((greats[1].at - greats[0].at) & 0xff) == 128 ? 2 : 1];
        if (rank == 0 && greats[0].gain + second.gain > gain) {
            gain  = greats[0].gain + second.gain;
            slots = tcq_join_greats(greats[0], second, m);
        }
        for (int less = 0; less < 2 && rank == 0; ++less) {
            const float size  = fabsf(x[greats[0].at]);
            const float after = tcq_expected_cost(e, size - (float) (less ? magnitude - value : magnitude + value));
            const float alone = e->w[greats[0].at]*(tcq_expected_cost(e, size) - after);
            if (alone > gain) {
                gain  = alone;
                slots = tcq_join_alone(greats[0], m, (int) greats[0].negative ^ less);
            }
        }
    }
    return slots;
}

// Chooses slots by what they are expected to save, subtracts them from x (level units) and returns them. Almost any weight
// far from zero gains from a slot that moves it towards zero, so a block always uses all its slots.
// Rank 0 is the best choice, higher ranks are alternatives to try.
static uint32_t tcq_place_slots(const tcq_encoder * e, float * x, int rank) {
    const tcq_format * f = e->trellis.f;

    const uint32_t slots = tcq_choose_slots(e, x, rank);
    for (int i = 0; i < tcq_n_slots(f->block_size); ++i) {
        x[tcq_slot_position(f->block_size, slots, i)] -= f->slots[tcq_slot_index(f->block_size, slots, i)];
    }
    return slots;
}

// targets of the trellis at one scale with one choice of slots, which are written; returns the cost common to all paths
static float tcq_set_block(tcq_encoder * e, int scale, int rank, uint32_t * slots) {
    const int   n = e->trellis.f->block_size;
    const float d = e->trellis.f->scales[scale];

    float target[QK_TCQ], xt[QK_TCQ];
    for (int j = 0; j < n; ++j) {
        target[j] = e->x[j]/d;
    }
    *slots = tcq_place_slots(e, target, rank);
    for (int i = 0; i < n; ++i) {
        xt[i] = target[tcq_weight_at(n, i)];
    }
    return tcq_trellis_set_cycle(&e->trellis, xt, e->wt, e->unit);
}

// weighted squared error of an encoding; *fit becomes the scale that would fit its levels best
static float tcq_block_error(const tcq_encoder * e, int scale, uint32_t slots, const uint8_t * u, const uint8_t * lo,
                             float * fit) {
    const tcq_format * f = e->trellis.f;
    const int   n = f->block_size;
    const float d = e->trellis.f->scales[scale];

    int16_t  q[QK_TCQ];
    unsigned window = tcq_state_after(u, n);
    for (int i = 0; i < n; ++i) {
        window = (window << 1 | u[i]) & 0x1ff;
        q[tcq_weight_at(n, i)] = f->levels[tcq_subset[window] | lo[i] << TCQ_N_PARITIES];
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

// encodes at one scale with one choice of slots and keeps the encoding if it is the best so far;
// returns the scale that would fit its levels best, or 0 if the path's cost rules it out
static float tcq_try(tcq_encoder * e, int scale, int rank, int n_seams) {
    const int   n = e->trellis.f->block_size;
    const float d = e->trellis.f->scales[scale];

    uint8_t  seams[TCQ_SEAMS], u[QK_TCQ], lo[QK_TCQ];
    uint32_t slots;
    int      seam;
    const float common_cost = tcq_set_block(e, scale, rank, &slots);
    tcq_trellis_seams(&e->trellis, n == QK_TCQ ? 1 : TCQ_SEAMS, seams);
    const uint32_t path_cost = tcq_trellis_search_cycle(&e->trellis, seams, n_seams, &seam);

    // rounding raises no step's cost by more than 1/2
    const float least_error = d*d*e->unit*((float) path_cost - 0.5f*n + common_cost);
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
        e->slots      = slots;
        memcpy(e->seams, seams, sizeof(seams));
        memcpy(e->u,     u,     sizeof(u));
        memcpy(e->lo,    lo,    sizeof(lo));
    }
    return fit;
}

// the seams of the best encoding that were not searched
static void tcq_try_other_seams(tcq_encoder * e) {
    const uint8_t * seams = e->seams + e->n_seams;

    uint32_t slots;
    int      seam;
    tcq_set_block(e, e->scale, e->rank, &slots);
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
        const int j = tcq_weight_at(f->block_size, i);
        for (int b = 0; b < f->rate - 1; ++b) {
            const int position = f->lo_position[j*(f->rate - 1) + b];
            block[n_bytes + (position >> 3)] |= (uint8_t) ((e->lo[i] >> b & 1) << (position & 7));
        }
    }
    const uint32_t side = e->slots | (uint32_t) e->scale << (f->block_size == QK_TCQ ? 25 : 8);
    for (int at = f->rate*n_bytes, shift = 0; at < f->type_size; ++at, shift += 8) {
        block[at] = (uint8_t) (side >> shift);
    }
}

// what is known of a block before any scale is tried
static void tcq_analyze_block(tcq_encoder * e, const float * x, const float * importance) {
    const tcq_format * f = e->trellis.f;
    const int n       = f->block_size;
    const int n_slots = tcq_n_slots(n);

    float norm = 0.0f;
    float energy[TCQ_CANDIDATES]; // of the candidates, descending
    int   n_candidates = 0;
    for (int j = 0; j < n; ++j) {
        e->w[j] = importance ? importance[j] : 1.0f;
        const float en = e->w[j]*x[j]*x[j];
        norm += en;
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
    for (int i = 0; i < n; ++i) {
        e->wt[i] = e->w[tcq_weight_at(n, i)];
    }
    e->x          = x;
    e->norm       = norm;
    e->mse        = tcq_expected_error(f);
    e->unit       = tcq_cost_unit(f, e->w, n);
    e->best_error = FLT_MAX;
    e->scale      = 0;

    // The first scale fits the rms of what the slots will leave, but a slot has to reach the largest weight. Weighted by
    // sqrt(importance): otherwise a single channel of high importance dominates
    bool in_slot[QK_TCQ] = { false };
    for (int i = 0; i < n_slots; ++i) {
        in_slot[e->candidates[i]] = true;
    }
    float sum = 0.0f, sum_root = 0.0f;
    for (int j = 0; j < n; ++j) {
        if (!in_slot[j]) {
            const float root = sqrtf(e->w[j]);
            sum      += root*x[j]*x[j];
            sum_root += root;
        }
    }
    const float rms_scale  = sum > 0.0f ? sqrtf(sum/sum_root)/f->level_rms : 0.0f;
    const int   most       = n == QK_TCQ ? f->slots[tcq_slot_index(n, 1 << 23, 0)] : f->slots[1];
    const float slot_scale = fabsf(x[e->candidates[0]])/(most + TCQ_MAX_LEVEL);
    e->first = tcq_nearest_scale(f, rms_scale > slot_scale ? rms_scale : slot_scale);

    // where the second weight too is beyond an ordinary slot, and both may not fit one great magnitude, the smaller one
    // takes a scale far from the first
    const bool  two_great   = fabsf(x[e->candidates[1]]) > f->scales[e->first]*(float) (f->slots[0] + TCQ_MAX_LEVEL);
    const float great_scale = fabsf(x[e->candidates[0]])/(f->slots[tcq_slot_index(n, 0, 0)] + TCQ_MAX_LEVEL);
    e->second = n == QK_TCQ && two_great ? tcq_nearest_scale(f, great_scale) : e->first;
}

bool tcq_encode_block(tcq_encoder * e, const float * x, const float * importance) {
    const tcq_format * f = e->trellis.f;
    const bool is_256 = f->block_size == QK_TCQ;

    tcq_analyze_block(e, x, importance);
    if (!(e->norm > 0.0f)) {
        return false;
    }
    const int first   = e->first;
    const int n_seams = is_256 ? 1 : 2; // short chains need more

    // the refit of the first scale, the second, neighbours of the better one as long as they help, then other slots
    bool tried[TCQ_SCALES] = { false };
    const int refit = tcq_nearest_scale(f, tcq_try(e, first, 0, n_seams));
    tried[first] = true;
    if (!tried[refit]) {
        tcq_try(e, refit, 0, n_seams);
        tried[refit] = true;
    }
    if (!tried[e->second]) {
        tcq_try(e, e->second, 0, n_seams);
        tried[e->second] = true;
    }
    for (int move = 0; move < TCQ_MOVES; ++move) {
        const int center = e->scale;
        for (int scale = center - 1; scale <= center + 1; scale += 2) {
            if (scale > 0 && scale < f->n_scales && !tried[scale] && e->scale == center) {
                tcq_try(e, scale, 0, n_seams);
                tried[scale] = true;
            }
        }
    }
    const int scale = e->scale;
    for (int rank = 1; rank < TCQ_RANKS; ++rank) {
        tcq_try(e, scale, rank, 1);
    }
    if (!is_256) {
        tcq_try_other_seams(e);
    }
    return e->best_error < e->norm; // weights too small for any scale are better zero
}

// the best encoding of x, or zeros: type_size bytes
static void tcq_write_block(tcq_encoder * e, const float * x, const float * importance, uint8_t * block) {
    if (tcq_encode_block(e, x, importance)) {
        tcq_pack_block(e, block);
    } else {
        memset(block, 0, e->trellis.f->type_size); // scale 0 is an all-zero block
    }
}

void tcq_encode_rows(const tcq_format * f, const float * src, uint8_t * dst,
                     int64_t nrows, int64_t n_per_row, const float * importance) {
    tcq_encoder * e = ggml_aligned_malloc(sizeof(tcq_encoder));
    GGML_ASSERT(e != NULL);
    tcq_trellis_init(&e->trellis, f);

    for (int64_t r = 0; r < nrows; ++r) {
        for (int64_t j = 0; j < n_per_row; j += f->block_size, dst += f->type_size) {
            tcq_write_block(e, src + r*n_per_row + j, importance ? importance + j : NULL, dst);
        }
    }
    ggml_aligned_free(e, sizeof(tcq_encoder));
}

size_t quantize_tcq(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst,
                    int64_t nrows, int64_t n_per_row, const float * imatrix) {
    const tcq_format * f = tcq_get_format(type);
    assert(n_per_row % f->block_size == 0);

    tcq_encode_rows(f, src, dst, nrows, n_per_row, imatrix);
    return nrows*(n_per_row/f->block_size)*f->type_size;
}

#define TCQ_DEFINE_QUANTIZE_ROW(name, NAME, qk)                                                            \
    void quantize_row_##name##_ref(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {     \
        quantize_tcq(GGML_TYPE_##NAME, x, y, 1, k, NULL);                                                  \
    }
TCQ_FOR_EACH_TYPE(TCQ_DEFINE_QUANTIZE_ROW)

void tcq_get_encoder_tables(const tcq_format * f, tcq_encoder_tables * tables) {
    tcq_trellis * t = ggml_aligned_malloc(sizeof(tcq_trellis));
    GGML_ASSERT(t != NULL);
    tcq_trellis_init(t, f);

    memset(tables, 0, sizeof(*tables));
    tables->rate       = f->rate;
    tables->block_size = f->block_size;
    tables->type_size  = f->type_size;
    tables->n_scales   = f->n_scales;
    tables->level_rms  = f->level_rms;
    tables->mse        = tcq_expected_error(f);
    memcpy(tables->marginal_cost, tcq_marginal_cost[f->rate - 1], sizeof(tables->marginal_cost));
    memcpy(tables->triples,       tcq_triples,                    sizeof(tables->triples));
    memcpy(tables->scale,         f->scales,                      f->n_scales*sizeof(float));
    memcpy(tables->nearest,       t->nearest,                     sizeof(tables->nearest));
    memcpy(tables->level,         t->level,                       sizeof(tables->level));
    memcpy(tables->lo,            t->lo,                          sizeof(tables->lo));
    memcpy(tables->subset[0],     t->forward.subset,              sizeof(tables->subset[0]));
    memcpy(tables->subset[1],     t->backward.subset,             sizeof(tables->subset[1]));
    memcpy(tables->mirrored,      t->mirrored,                    sizeof(tables->mirrored));
    memcpy(tables->levels,        f->levels,                      TCQ_SUBSETS*f->n_lo*sizeof(int8_t));
    memcpy(tables->slots,         f->slots,                       (f->block_size == QK_TCQ ? 128 : 4)*sizeof(int16_t));
    if (f->rate > 1) {
        memcpy(tables->lo_position, f->lo_position, f->block_size*(f->rate - 1)*sizeof(uint16_t));
    }
    ggml_aligned_free(t, sizeof(tcq_trellis));
}
