// The TCQ encoder of ggml-tcq-trellis.c, -encode.c and -feedback.c, by the threads of one thread block together: the same
// steps with the same arithmetic in the same order, so the same bytes. Functions have the same names and order as there,
// where the comments say why; here they say what differs. A step's decisions are kept, a bit for each state, instead of
// its costs: a warp's vote makes them for nothing, and they fit into shared memory.
//
// It also compiles as C++ for the CPU, where one thread does everything, which is how it is tested without a GPU. So every
// step is a loop over independent items (TCQ_EACH) or the work of a single thread (TCQ_SINGLE) and ends with a barrier,
// and all control flow depends on values that all threads see alike.

#pragma once

#include "ggml-tcq-encode.h"
#include "ggml-tcq-slots.h"

#include <float.h>
#include <stdint.h>

#define TCQ_ENCODE_THREADS (TCQ_STATES/2) // one for each butterfly of the trellis

#if defined(__CUDACC__)
#define TCQ_DEVICE      static __device__
#define TCQ_DEVICE_ONCE static __device__ __noinline__ // called in many places: one copy of its code
#define TCQ_SHARED(p)   __builtin_assume(__isShared(p)) // which the compiler cannot see in such a function
#define TCQ_EACH(i, n)  _Pragma("unroll 1") for (int i = threadIdx.x; i < (n); i += TCQ_ENCODE_THREADS)
#define TCQ_SINGLE      if (threadIdx.x == 0)
#define TCQ_BARRIER()   __syncthreads()

// in PTX, because ggml-cuda is compiled for fast, inexact arithmetic and may contract multiplications and additions
TCQ_DEVICE __forceinline__ float tcq_add(float a, float b) {
    float r;
    asm("add.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

TCQ_DEVICE __forceinline__ float tcq_sub(float a, float b) {
    float r;
    asm("sub.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

TCQ_DEVICE __forceinline__ float tcq_mul(float a, float b) {
    float r;
    asm("mul.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

TCQ_DEVICE __forceinline__ float tcq_div(float a, float b) {
    float r;
    asm("div.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

TCQ_DEVICE __forceinline__ float tcq_sqrt(float a) {
    float r;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(a));
    return r;
}

// all threads of a warp call these
TCQ_DEVICE __forceinline__ void tcq_lower(uint32_t * least, uint32_t value) {
    for (int offset = 16; offset > 0; offset >>= 1) {
        value = min(value, __shfl_xor_sync(0xffffffff, value, offset));
    }
    if (threadIdx.x % 32 == 0) {
        atomicMin(least, value);
    }
}

// threads of a warp have 32 butterflies in a row
TCQ_DEVICE __forceinline__ void tcq_set_decisions(uint32_t * decisions, int m, bool even, bool odd) {
    const uint32_t evens = __ballot_sync(0xffffffff, even);
    const uint32_t odds  = __ballot_sync(0xffffffff, odd);
    if (m % 32 == 0) {
        decisions[m/32]     = evens;
        decisions[m/32 + 4] = odds;
    }
}

// each butterfly, and a variable of it: a register of its thread
#define TCQ_EACH_BUTTERFLY(m)       for (int m = threadIdx.x, todo = 1; todo; todo = 0)
#define TCQ_OF_BUTTERFLIES(T, name) T name[1]
#define TCQ_OWN(name, m)            name[0]

TCQ_DEVICE __forceinline__ void tcq_set_bits(uint32_t * words, int bit, uint32_t value) {
    atomicOr(words + bit/32, value << bit%32);
}
#else
#include <math.h>

#define TCQ_DEVICE      static
#define TCQ_DEVICE_ONCE static
#define TCQ_SHARED(p)   ((void) 0)
#define TCQ_EACH(i, n)  for (int i = 0; i < (n); ++i)
#define TCQ_SINGLE
#define TCQ_BARRIER()   ((void) 0)

TCQ_DEVICE float tcq_add (float a, float b) { return a + b; }
TCQ_DEVICE float tcq_sub (float a, float b) { return a - b; }
TCQ_DEVICE float tcq_mul (float a, float b) { return a*b; }
TCQ_DEVICE float tcq_div (float a, float b) { return a/b; }
TCQ_DEVICE float tcq_sqrt(float a)          { return sqrtf(a); }

TCQ_DEVICE void tcq_lower(uint32_t * least, uint32_t value) {
    *least = value < *least ? value : *least;
}

TCQ_DEVICE void tcq_set_decisions(uint32_t * decisions, int m, bool even, bool odd) {
    for (int k = 0; k < 2 && m % 32 == 0; ++k) {
        decisions[m/32 + 4*k] = 0;
    }
    decisions[m/32]     |= (uint32_t) even << m%32;
    decisions[m/32 + 4] |= (uint32_t) odd  << m%32;
}

#define TCQ_EACH_BUTTERFLY(m)       for (int m = 0; m < TCQ_STATES/2; ++m)
#define TCQ_OF_BUTTERFLIES(T, name) T name[TCQ_STATES/2]
#define TCQ_OWN(name, m)            name[m]

TCQ_DEVICE void tcq_set_bits(uint32_t * words, int bit, uint32_t value) {
    words[bit/32] |= value << bit%32;
}
#endif

namespace tcq_device {

#define TCQ_ENCODE_NONE 0xffffffffu

// one trial's slots, seams and path
struct tcq_encoding {
    uint32_t slots;
    uint8_t  seams[TCQ_SEAMS];
    uint8_t  u [QK_TCQ];
    uint8_t  lo[QK_TCQ];
};

// costs of states 2*m and 2*m + 1
struct alignas(4) tcq_pair {
    uint16_t even, odd;
};

// the block being encoded, in shared memory
struct tcq_encoder {
    const tcq_encoder_tables * t;

    float    x     [QK_TCQ];
    float    w     [QK_TCQ];
    float    target[QK_TCQ];
    float    term  [QK_TCQ];              // of a sum
    uint16_t metric[QK_TCQ][TCQ_SUBSETS]; // cost of a step, by time and subset
    uint8_t  bin   [QK_TCQ];              // where the step's lo bits are in the tables
    uint32_t decisions[QK_TCQ][8];        // by step: is the second predecessor the better one, of even states, then odd
    tcq_pair cost [2][TCQ_STATES/2];      // before and after a step
    uint16_t after[TCQ_STATES];
    uint32_t key  [TCQ_STATES];
    uint32_t least;
    int16_t  q[QK_TCQ];
    float    sums[3][4];
    float    error[QK_TCQ];               // by time, of the block that feedback is deciding
    uint32_t packed[8*TCQ_N_RATES + 1];   // the largest block

    float    norm;
    float    unit;
    int      first;                       // scale
    int      second;                      // scale
    uint8_t  candidates[TCQ_CANDIDATES];
    tcq_slot found [TCQ_CANDIDATES];      // a slot for each, before they are ranked
    tcq_slot best_slots[TCQ_CANDIDATES];
    tcq_slot greats[2][TCQ_CANDIDATES];   // by magnitude

    tcq_encoding trial;
    float        common_cost;

    tcq_encoding best;
    float        best_error;
    int          scale;
    int          rank;
    int          n_seams;
    uint32_t     path_cost;

    int          state;                   // after a section
};

// ---------------------------------------------------------------------------------------------------------------
// trellis

TCQ_DEVICE const uint16_t * tcq_costs(const tcq_encoder * e) {
    return &e->cost[0][0].even;
}

// n steps (even, a multiple of 8) from e->cost[0], which the result replaces; decisions [n] or NULL keeps them. Step i has
// the metric of time first + i*stride in the cycle
TCQ_DEVICE_ONCE uint32_t tcq_advance(tcq_encoder * e, const uint8_t * subset, int first, int stride, int n, uint32_t (*decisions)[8]) {
    TCQ_SHARED(e);
    const int last = e->t->block_size - 1;
    uint32_t subtracted = 0;

    TCQ_OF_BUTTERFLIES(int, subsets);
    TCQ_EACH_BUTTERFLY(m) {
        TCQ_OWN(subsets, m) = subset[2*m];
    }
    for (int i = 0; i < n; ++i) {
        const uint16_t * from   = &e->cost[i & 1][0].even;
        tcq_pair       * to     = e->cost[~i & 1];
        const uint16_t * metric = e->metric[(first + i*stride) & last];
        const uint32_t   offset = (i & 7) == 7 ? e->least : 0; // the least of `from`, found a step ago
        subtracted += offset;

        TCQ_EACH_BUTTERFLY(m) {
            const int      z  = TCQ_OWN(subsets, m);
            const uint32_t p  = metric[z], q = metric[z ^ 8];
            const uint32_t a  = from[m], b = from[m + TCQ_STATES/2];
            const uint32_t a0 = a + p, b0 = b + q;
            const uint32_t a1 = a + q, b1 = b + p;
            const uint32_t even = (b0 < a0 ? b0 : a0) - offset;
            const uint32_t odd  = (b1 < a1 ? b1 : a1) - offset;
            to[m] = { (uint16_t) even, (uint16_t) odd };
            if (decisions) {
                tcq_set_decisions(decisions[i], m, b0 < a0, b1 < a1);
            }
            if ((i & 7) == 6) {
                tcq_lower(&e->least, even < odd ? even : odd);
            }
        }
        TCQ_SINGLE {
            if ((i & 7) == 0) {
                e->least = TCQ_ENCODE_NONE;
            }
        }
        TCQ_BARRIER();
    }
    return subtracted;
}

// one step of tcq_set_targets, with target x and a weight in units of cost
TCQ_DEVICE float tcq_set_target(tcq_encoder * e, int time, float x, float weight) {
    const tcq_encoder_tables * t = e->t;

    const float most  = TCQ_MAX_LEVEL + 0.5f, lowest = -TCQ_MAX_LEVEL - 1.0f;
    const float below = x     < most   ? x     : most;
    const float inner = below > lowest ? below : lowest;
    const int   bin   = (int) tcq_add(tcq_mul(2.0f, inner), 128.0f);

    const float off   = tcq_sub(x, t->nearest[bin]);
    const float least = tcq_mul(off, off);
    for (int z = 0; z < TCQ_SUBSETS; ++z) {
        const float error  = tcq_sub(x, t->level[bin][z]);
        const float scaled = tcq_add(tcq_mul(weight, tcq_sub(tcq_mul(error, error), least)), 0.5f);
        e->metric[time][z] = (uint16_t) (scaled < TCQ_MAX_METRIC ? scaled : (float) TCQ_MAX_METRIC);
    }
    e->bin[time] = (uint8_t) bin;
    return tcq_mul(weight, least);
}

// of n steps, by the sum of their weights' roots
TCQ_DEVICE float tcq_cost_unit(const tcq_encoder_tables * t, float sum_root, int n) {
    const float root = tcq_div(tcq_mul(tcq_div(sum_root, (float) n), t->level_rms), (float) (1 << t->rate));
    return tcq_div(tcq_mul(root, root), 32.0f);
}

// the costs before the first step: `others` of every state but start
TCQ_DEVICE void tcq_start(tcq_encoder * e, int start, uint16_t others) {
    TCQ_EACH_BUTTERFLY(m) {
        e->cost[0][m] = { 2*m == start ? (uint16_t) 0 : others, 2*m + 1 == start ? (uint16_t) 0 : others };
    }
    TCQ_BARRIER();
}

// n steps from time `first` on, whose decisions are kept
TCQ_DEVICE uint32_t tcq_run(tcq_encoder * e, int start, int first, int n, uint32_t (*decisions)[8]) {
    tcq_start(e, start, TCQ_UNREACHABLE);
    return tcq_advance(e, e->t->subset[0], first, 1, n, decisions);
}

// path bits alone; by a single thread
TCQ_DEVICE int tcq_trace_back(const uint32_t (*decisions)[8], int n, int s, int n_keep, uint8_t * u) {
    int kept = s;
    for (int i = n - 1; i >= 0; --i) {
        if (i == n_keep - 1) {
            kept = s;
        }
        if (i < n_keep) {
            u[i] = (uint8_t) (s & 1);
        }
        const int second = decisions[i][(s & 1) << 2 | s >> 6] >> (s >> 1 & 31) & 1;
        s = s >> 1 | second << 7;
    }
    return kept;
}

TCQ_DEVICE void tcq_trellis_seams(tcq_encoder * e, int n_seams) {
    const tcq_encoder_tables * t = e->t;

    tcq_start(e, -1, 0);
    tcq_advance(e, t->subset[1], TCQ_SETTLE - 1, -1, TCQ_SETTLE, NULL);
    TCQ_EACH(s, TCQ_STATES) {
        e->after[s] = tcq_costs(e)[s];
    }
    TCQ_BARRIER();
    TCQ_BARRIER();
    tcq_start(e, -1, 0);
    tcq_advance(e, t->subset[0], t->block_size - TCQ_SETTLE, 1, TCQ_SETTLE, NULL);
    TCQ_EACH(s, TCQ_STATES) {
        e->key[s] = (uint32_t) (tcq_costs(e)[s] + e->after[t->mirrored[s]])*TCQ_STATES + s;
    }
    for (int k = 0; k < n_seams; ++k) {
        TCQ_SINGLE {
            e->least = TCQ_ENCODE_NONE;
        }
        TCQ_BARRIER();
        TCQ_EACH(s, TCQ_STATES) {
            tcq_lower(&e->least, e->key[s]);
        }
        TCQ_BARRIER();
        TCQ_SINGLE {
            e->trial.seams[k] = (uint8_t) (e->least % TCQ_STATES);
            e->key[e->least % TCQ_STATES] = TCQ_ENCODE_NONE;
        }
        TCQ_BARRIER();
    }
}

TCQ_DEVICE uint32_t tcq_trellis_search_cycle(tcq_encoder * e, const uint8_t * seams, int n_seams, int * best) {
    const int n = e->t->block_size;

    uint32_t least = 0;
    for (int k = 0; k < n_seams; ++k) {
        const uint32_t subtracted = tcq_run(e, seams[k], 0, n, e->decisions + k*n);
        const uint32_t cost       = subtracted + tcq_costs(e)[seams[k]];
        TCQ_BARRIER();
        if (k == 0 || cost < least) {
            least = cost;
            *best = k;
        }
    }
    return least;
}

// the last 9 bits of a cyclic path u [n] at time i
TCQ_DEVICE unsigned tcq_window_at(const uint8_t * u, int n, int i) {
    unsigned window = 0;
    for (int b = 8; b >= 0; --b) {
        window = window << 1 | u[(i - b) & (n - 1)];
    }
    return window;
}

// the path becomes the trial's
TCQ_DEVICE void tcq_trellis_cycle(tcq_encoder * e, const uint8_t * seams, int k) {
    const tcq_encoder_tables * t = e->t;
    const int n = t->block_size;

    TCQ_SINGLE {
        tcq_trace_back(e->decisions + k*n, n, seams[k], n, e->trial.u);
    }
    TCQ_BARRIER();
    TCQ_EACH(i, n) {
        e->trial.lo[i] = t->lo[e->bin[i]][t->subset[0][tcq_window_at(e->trial.u, n, i)]];
    }
    TCQ_BARRIER();
}

// ---------------------------------------------------------------------------------------------------------------
// one block

TCQ_DEVICE int tcq_nearest_scale(const tcq_encoder_tables * t, float d) {
    int lo = 1, hi = t->n_scales - 1;
    while (lo < hi) {
        const int mid = (lo + hi)/2;
        if (t->scale[mid] < d) { lo = mid + 1; } else { hi = mid; }
    }
    return lo > 1 && tcq_sub(d, t->scale[lo - 1]) < tcq_sub(t->scale[lo], d) ? lo - 1 : lo;
}

TCQ_DEVICE float tcq_expected_cost(const tcq_encoder_tables * t, float x) {
    const float m = fabsf(x);
    if (m < TCQ_MAX_LEVEL) {
        const float at = tcq_div(m, TCQ_COST_STEP);
        const int   i  = (int) at;
        const float a  = t->marginal_cost[i], b = t->marginal_cost[i + 1];
        return tcq_mul(t->mse, tcq_add(a, tcq_mul(tcq_sub(at, (float) i), tcq_sub(b, a))));
    }
    const float excess = tcq_sub(m, TCQ_MAX_LEVEL);
    return tcq_add(tcq_mul(t->mse, t->marginal_cost[TCQ_COST_STEPS - 1]), tcq_mul(excess, excess));
}

// best [TCQ_CANDIDATES]; targets are in e->target
TCQ_DEVICE void tcq_rank_slots(tcq_encoder * e, int magnitude0, int magnitude1, int n, tcq_slot * best) {
    const tcq_encoder_tables * t = e->t;

    TCQ_EACH(k, TCQ_CANDIDATES) {
        tcq_slot slot = { -FLT_MAX, e->candidates[k], 0, 0 };
        const float x      = e->target[slot.at];
        const float m      = fabsf(x);
        const float before = tcq_expected_cost(t, m);
        slot.negative = x < 0.0f;
        for (int v = 0; v < n; ++v) {
            const float left = tcq_sub(m, (float) (v == 0 ? magnitude0 : magnitude1));
            const float gain = tcq_mul(e->w[slot.at], tcq_sub(before, tcq_expected_cost(t, left)));
            if (gain > slot.gain) {
                slot.gain  = gain;
                slot.value = v;
            }
        }
        e->found[k] = slot;
    }
    TCQ_BARRIER();
    TCQ_EACH(k, TCQ_CANDIDATES) {
        int before = 0;
        for (int i = 0; i < TCQ_CANDIDATES; ++i) {
            before += e->found[i].gain > e->found[k].gain || (e->found[i].gain == e->found[k].gain && i < k);
        }
        best[before] = e->found[k];
    }
    TCQ_BARRIER();
}

// what is left to a single thread once the slots are ranked
TCQ_DEVICE uint32_t tcq_choose_slots(const tcq_encoder * e, int rank) {
    const tcq_encoder_tables * t    = e->t;
    const tcq_slot           * best = e->best_slots;
    if (t->block_size != QK_TCQ) {
        return best[rank].at | best[rank].value << 6 | best[rank].negative << 7;
    }
    const tcq_slot a = best[t->triples[rank][0]], b = best[t->triples[rank][1]], c = best[t->triples[rank][2]];
    uint32_t slots = tcq_join_slots(a, b, c);
    float    gain  = tcq_add(tcq_add(a.gain, b.gain), c.gain);

    for (int m = 0; m < 2; ++m) {
        const tcq_slot * greats = e->greats[m];
        for (int k = 0, left = rank; k < TCQ_CANDIDATES; ++k) {
            const uint32_t ahead = (best[k].at - greats[0].at) & 0xff;
            const float    both  = tcq_add(greats[0].gain, best[k].gain);
            if (ahead > 0 && ahead < 128 && left-- == 0 && both > gain) {
                gain  = both;
                slots = tcq_join_great(greats[0], m, best[k]);
            }
        }
        const tcq_slot second = greats[((greats[1].at - greats[0].at) & 0xff) == 128 ? 2 : 1];
        const float    both   = tcq_add(greats[0].gain, second.gain);
        if (rank == 0 && both > gain) {
            gain  = both;
            slots = tcq_join_greats(greats[0], second, m);
        }
        const int magnitude = t->slots[tcq_slot_index(QK_TCQ, (uint32_t) m << 23, 0)];
        for (int less = 0; less < 2 && rank == 0; ++less) {
            const float size  = fabsf(e->target[greats[0].at]);
            const float sum   = (float) (less ? magnitude - t->slots[0] : magnitude + t->slots[0]);
            const float after = tcq_expected_cost(t, tcq_sub(size, sum));
            const float alone = tcq_mul(e->w[greats[0].at], tcq_sub(tcq_expected_cost(t, size), after));
            if (alone > gain) {
                gain  = alone;
                slots = tcq_join_alone(greats[0], m, (int) greats[0].negative ^ less);
            }
        }
    }
    return slots;
}

// in e->target; the slots become the trial's
TCQ_DEVICE void tcq_place_slots(tcq_encoder * e, int rank) {
    const tcq_encoder_tables * t = e->t;
    const int n = t->block_size;

    if (n == QK_TCQ) {
        tcq_rank_slots(e, t->slots[tcq_slot_index(n, 0, 0)],       0, 1, e->greats[0]);
        tcq_rank_slots(e, t->slots[tcq_slot_index(n, 1 << 23, 0)], 0, 1, e->greats[1]);
        tcq_rank_slots(e, t->slots[0], 0, 1, e->best_slots);
    } else {
        tcq_rank_slots(e, t->slots[0], t->slots[1], 2, e->best_slots);
    }
    TCQ_SINGLE {
        const uint32_t slots = tcq_choose_slots(e, rank);
        for (int i = 0; i < tcq_n_slots(n); ++i) {
            const int at = tcq_slot_position(n, slots, i);
            e->target[at] = tcq_sub(e->target[at], (float) t->slots[tcq_slot_index(n, slots, i)]);
        }
        e->trial.slots = slots;
    }
    TCQ_BARRIER();
}

// by a single thread
TCQ_DEVICE void tcq_add_slots(const tcq_encoder_tables * t, uint32_t slots, int16_t * q) {
    for (int i = 0; i < tcq_n_slots(t->block_size); ++i) {
        q[tcq_slot_position(t->block_size, slots, i)] += t->slots[tcq_slot_index(t->block_size, slots, i)];
    }
}

// the slots and the common cost become the trial's
TCQ_DEVICE void tcq_set_block(tcq_encoder * e, int scale, int rank) {
    const tcq_encoder_tables * t = e->t;
    const int   n        = t->block_size;
    const float d        = t->scale[scale];
    const float per_unit = tcq_div(1.0f, e->unit);

    TCQ_EACH(j, n) {
        e->target[j] = tcq_div(e->x[j], d);
    }
    TCQ_BARRIER();
    tcq_place_slots(e, rank);
    TCQ_EACH(i, n) {
        const int j = tcq_weight_at(n, i);
        e->term[i] = tcq_set_target(e, i, e->target[j], tcq_mul(e->w[j], per_unit));
    }
    TCQ_BARRIER();
    TCQ_SINGLE {
        float common_cost = 0.0f;
        for (int i = 0; i < n; ++i) {
            common_cost = tcq_add(common_cost, e->term[i]);
        }
        e->common_cost = common_cost;
    }
    TCQ_BARRIER();
}

// of the trial
TCQ_DEVICE float tcq_block_error(tcq_encoder * e, int scale, float * fit) {
    const tcq_encoder_tables * t = e->t;
    const int   n = t->block_size;
    const float d = t->scale[scale];

    TCQ_EACH(i, n) {
        const int z = t->subset[0][tcq_window_at(e->trial.u, n, i)];
        e->q[tcq_weight_at(n, i)] = t->levels[z | e->trial.lo[i] << TCQ_N_PARITIES];
    }
    TCQ_BARRIER();
    TCQ_SINGLE {
        tcq_add_slots(t, e->trial.slots, e->q);
    }
    TCQ_BARRIER();
    TCQ_EACH(k, 4) {
        float error = 0.0f, xq = 0.0f, qq = 0.0f;
        for (int j = k; j < n; j += 4) {
            const float v = (float) e->q[j], r = tcq_sub(e->x[j], tcq_mul(d, v));
            error = tcq_add(error, tcq_mul(tcq_mul(e->w[j], r), r));
            xq    = tcq_add(xq,    tcq_mul(tcq_mul(e->w[j], e->x[j]), v));
            qq    = tcq_add(qq,    tcq_mul(tcq_mul(e->w[j], v), v));
        }
        e->sums[0][k] = error;
        e->sums[1][k] = xq;
        e->sums[2][k] = qq;
    }
    TCQ_BARRIER();
    const float sum_xq = tcq_add(tcq_add(e->sums[1][0], e->sums[1][1]), tcq_add(e->sums[1][2], e->sums[1][3]));
    const float sum_qq = tcq_add(tcq_add(e->sums[2][0], e->sums[2][1]), tcq_add(e->sums[2][2], e->sums[2][3]));
    *fit = sum_xq > 0.0f ? tcq_div(sum_xq, sum_qq) : d;
    return tcq_add(tcq_add(e->sums[0][0], e->sums[0][1]), tcq_add(e->sums[0][2], e->sums[0][3]));
}

TCQ_DEVICE_ONCE float tcq_try(tcq_encoder * e, int scale, int rank, int n_seams) {
    TCQ_SHARED(e);
    const int   n = e->t->block_size;
    const float d = e->t->scale[scale];

    int seam = 0;
    tcq_set_block(e, scale, rank);
    tcq_trellis_seams(e, n == QK_TCQ ? 1 : TCQ_SEAMS);
    const uint32_t path_cost = tcq_trellis_search_cycle(e, e->trial.seams, n_seams, &seam);

    const float steps       = tcq_add(tcq_sub((float) path_cost, 0.5f*n), e->common_cost);
    const float least_error = tcq_mul(tcq_mul(tcq_mul(d, d), e->unit), steps);
    if (e->scale != 0 && tcq_mul(0.999f, least_error) > e->best_error) {
        return 0.0f;
    }
    tcq_trellis_cycle(e, e->trial.seams, seam);

    float fit;
    const float error  = tcq_block_error(e, scale, &fit);
    const bool  better = error < e->best_error || e->scale == 0;
    TCQ_BARRIER();
    if (better) {
        TCQ_SINGLE {
            e->best_error = error;
            e->scale      = scale;
            e->rank       = rank;
            e->n_seams    = n_seams;
            e->path_cost  = path_cost;
        }
        TCQ_EACH(i, (int) sizeof(tcq_encoding)) {
            ((uint8_t *) &e->best)[i] = ((const uint8_t *) &e->trial)[i];
        }
    }
    TCQ_BARRIER();
    return fit;
}

TCQ_DEVICE void tcq_try_other_seams(tcq_encoder * e) {
    const int n_seams = e->n_seams;
    const int scale   = e->scale;

    int seam = 0;
    tcq_set_block(e, scale, e->rank);
    if (tcq_trellis_search_cycle(e, e->best.seams + n_seams, TCQ_SEAMS - n_seams, &seam) < e->path_cost) {
        float fit;
        tcq_trellis_cycle(e, e->best.seams + n_seams, seam);
        const float error  = tcq_block_error(e, scale, &fit);
        const bool  better = error < e->best_error;
        TCQ_BARRIER();
        if (better) {
            TCQ_SINGLE {
                e->best_error = error;
            }
            TCQ_EACH(i, QK_TCQ) {
                e->best.u [i] = e->trial.u [i];
                e->best.lo[i] = e->trial.lo[i];
            }
        }
        TCQ_BARRIER();
    }
}

// the best encoding, or zeros
TCQ_DEVICE void tcq_pack_block(tcq_encoder * e, bool zero, uint8_t * dst) {
    const tcq_encoder_tables * t = e->t;
    const int n = t->block_size;

    const int n_words = (int) (sizeof(e->packed)/sizeof(e->packed[0]));
    TCQ_EACH(i, n_words) {
        e->packed[i] = 0;
    }
    TCQ_BARRIER();
    if (!zero) {
        TCQ_EACH(i, n) {
            const int j = tcq_weight_at(n, i);
            tcq_set_bits(e->packed, i, e->best.u[i]);
            for (int b = 0; b < t->rate - 1; ++b) {
                tcq_set_bits(e->packed, n + t->lo_position[j*(t->rate - 1) + b], e->best.lo[i] >> b & 1);
            }
        }
        TCQ_SINGLE {
            tcq_set_bits(e->packed, t->rate*n, e->best.slots | (uint32_t) e->scale << (n == QK_TCQ ? 25 : 8));
        }
    }
    TCQ_BARRIER();
    TCQ_EACH(i, t->type_size) {
        dst[i] = (uint8_t) (e->packed[i/4] >> 8*(i%4));
    }
    TCQ_BARRIER();
}

TCQ_DEVICE void tcq_analyze_block(tcq_encoder * e) {
    const tcq_encoder_tables * t = e->t;
    const int n       = t->block_size;
    const int n_slots = tcq_n_slots(n);

    TCQ_EACH(j, n) {
        e->term  [j] = tcq_mul(tcq_mul(e->w[j], e->x[j]), e->x[j]);
        e->target[j] = tcq_sqrt(e->w[j]);
    }
    TCQ_BARRIER();
    TCQ_EACH(j, n) {
        int before = 0; // weights of more energy
        for (int i = 0; i < n && before < TCQ_CANDIDATES; ++i) {
            before += e->term[i] > e->term[j] || (e->term[i] == e->term[j] && i < j);
        }
        if (before < TCQ_CANDIDATES) {
            e->candidates[before] = (uint8_t) j;
        }
    }
    TCQ_BARRIER();
    TCQ_SINGLE {
        float norm = 0.0f, sum = 0.0f, sum_root = 0.0f, sum_all = 0.0f;
        for (int j = 0; j < n; ++j) {
            const float root = e->target[j];
            bool has_slot = false;
            for (int k = 0; k < n_slots; ++k) {
                has_slot = has_slot || j == e->candidates[k];
            }
            norm    = tcq_add(norm, e->term[j]);
            sum_all = tcq_add(sum_all, root);
            if (!has_slot) {
                sum      = tcq_add(sum, tcq_mul(tcq_mul(root, e->x[j]), e->x[j]));
                sum_root = tcq_add(sum_root, root);
            }
        }
        e->norm       = norm;
        e->unit       = tcq_cost_unit(t, sum_all, n);
        e->best_error = FLT_MAX;
        e->scale      = 0;

        const float rms_scale  = sum > 0.0f ? tcq_div(tcq_sqrt(tcq_div(sum, sum_root)), t->level_rms) : 0.0f;
        const int   most       = n == QK_TCQ ? t->slots[tcq_slot_index(n, 1 << 23, 0)] : t->slots[1];
        const float slot_scale = tcq_div(fabsf(e->x[e->candidates[0]]), (float) (most + TCQ_MAX_LEVEL));
        e->first = tcq_nearest_scale(t, rms_scale > slot_scale ? rms_scale : slot_scale);

        const float reach       = tcq_mul(t->scale[e->first], (float) (t->slots[0] + TCQ_MAX_LEVEL));
        const float great       = (float) (t->slots[tcq_slot_index(n, 0, 0)] + TCQ_MAX_LEVEL);
        const float great_scale = tcq_div(fabsf(e->x[e->candidates[0]]), great);
        e->second = n == QK_TCQ && fabsf(e->x[e->candidates[1]]) > reach ? tcq_nearest_scale(t, great_scale) : e->first;
    }
    TCQ_BARRIER();
}

// e->x with importance e->w
TCQ_DEVICE bool tcq_encode_block(tcq_encoder * e) {
    const tcq_encoder_tables * t = e->t;
    const bool is_256 = t->block_size == QK_TCQ;

    tcq_analyze_block(e);
    if (!(e->norm > 0.0f)) {
        return false;
    }
    const int first   = e->first;
    const int n_seams = is_256 ? 1 : 2;

    const int refit = tcq_nearest_scale(t, tcq_try(e, first, 0, n_seams));
    if (refit != first) {
        tcq_try(e, refit, 0, n_seams);
    }
    int tried[3 + 2*TCQ_MOVES] = { first, refit };
    int n_tried = 2;
    if (e->second != first && e->second != refit) {
        tcq_try(e, e->second, 0, n_seams);
        tried[n_tried++] = e->second;
    }
    for (int move = 0; move < TCQ_MOVES; ++move) {
        const int center = e->scale;
        for (int scale = center - 1; scale <= center + 1; scale += 2) {
            bool was_tried = false;
            for (int i = 0; i < n_tried; ++i) {
                was_tried = was_tried || tried[i] == scale;
            }
            if (scale > 0 && scale < t->n_scales && !was_tried && e->scale == center) {
                tcq_try(e, scale, 0, n_seams);
                tried[n_tried++] = scale;
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
    return e->best_error < e->norm;
}

// x [block_size], importance [block_size] or NULL; writes type_size bytes
TCQ_DEVICE void tcq_write_block(tcq_encoder * e, const float * x, const float * importance, uint8_t * dst) {
    TCQ_EACH(j, e->t->block_size) {
        e->x[j] = x[j];
        e->w[j] = importance ? importance[j] : 1.0f;
    }
    TCQ_BARRIER();
    const bool zero = !tcq_encode_block(e);
    tcq_pack_block(e, zero, dst);
}

// ---------------------------------------------------------------------------------------------------------------
// error feedback

// of one row
TCQ_DEVICE void tcq_propagate(float * x, const float * error, const float * p, int64_t stride, int n_k,
                              int64_t first, int64_t end) {
    TCQ_EACH(i, (int) (end - first)) {
        const int64_t j = first + i;
        float sum = 0.0f;
        for (int k = 0; k < n_k; ++k) {
            sum = tcq_add(sum, tcq_mul(error[k], p[k*stride + j]));
        }
        x[j] = tcq_sub(x[j], sum);
    }
    TCQ_BARRIER();
}

// leaves the error in e->error; *state is the path's before and after, seam its first and last
TCQ_DEVICE void tcq_decide_section(tcq_encoder * e, const float * x, const float * w, int first,
                                   const tcq_feedback * feedback, int seam, int * state) {
    const tcq_encoder_tables * t = e->t;
    const int   section = feedback->section;
    const int   ahead   = first + section + feedback->look_ahead;
    const int   n       = ahead < t->block_size ? section + feedback->look_ahead : t->block_size - first;
    const bool  at_end  = first + n == t->block_size;
    const float d       = t->scale[e->scale];

    TCQ_EACH(i, n) {
        e->term[i] = tcq_sqrt(w[i]);
    }
    TCQ_BARRIER();
    TCQ_SINGLE {
        float sum_root = 0.0f;
        for (int i = 0; i < n; ++i) {
            sum_root = tcq_add(sum_root, e->term[i]);
        }
        e->unit = tcq_cost_unit(t, sum_root, n);
    }
    TCQ_BARRIER();
    const float per_unit = tcq_div(1.0f, e->unit);
    TCQ_EACH(i, n) {
        const int   at     = first + i;
        const float target = tcq_sub(tcq_div(x[at], d), (float) e->q[tcq_weight_at(t->block_size, at)]);
        tcq_set_target(e, i, target, tcq_mul(w[i], per_unit));
    }
    TCQ_BARRIER();
    tcq_run(e, *state, 0, n, e->decisions);
    TCQ_SINGLE {
        e->least = TCQ_ENCODE_NONE;
    }
    TCQ_BARRIER();
    TCQ_EACH(s, TCQ_STATES) {
        tcq_lower(&e->least, (uint32_t) tcq_costs(e)[s]*TCQ_STATES + s);
    }
    TCQ_BARRIER();
    TCQ_SINGLE {
        const int end = at_end ? seam : (int) (e->least % TCQ_STATES);
        e->state = tcq_trace_back(e->decisions, n, end, section, e->best.u + first);
    }
    TCQ_BARRIER();
    TCQ_EACH(i, section) {
        unsigned window = 0;
        for (int b = 8; b >= 0; --b) { // bits before the section are those of the state
            window = window << 1 | (i >= b ? e->best.u[first + i - b] : *state >> (b - i - 1) & 1);
        }
        const int at     = first + i;
        const int z      = t->subset[0][window];
        const int level  = t->levels[z | t->lo[e->bin[i]][z] << TCQ_N_PARITIES];
        const int offset = e->q[tcq_weight_at(t->block_size, at)];
        e->error[at]   = tcq_sub(x[at], tcq_mul(d, (float) (level + offset)));
        e->best.lo[at] = t->lo[e->bin[i]][z];
    }
    *state = e->state;
    TCQ_BARRIER();
}

// one row [n_per_row] with error feedback; x [n_per_row] is scratch
TCQ_DEVICE void tcq_encode_row(tcq_encoder * e, const float * src, float * x, int64_t n_per_row,
                               const tcq_feedback * feedback, uint8_t * dst) {
    const tcq_encoder_tables * t = e->t;
    const int     n           = t->block_size;
    const int     section     = feedback->section;
    const float * propagation = feedback->propagation;

    TCQ_EACH(j, (int) n_per_row) {
        const int i = j % n;
        x[j] = src[j - i + tcq_weight_at(n, i)];
    }
    TCQ_BARRIER();
    for (int64_t b = 0; b < n_per_row; b += n) {
        TCQ_EACH(i, n) {
            const int j = tcq_weight_at(n, i);
            e->x[j] = x[b + i];
            e->w[j] = feedback->block_weights[b + i];
        }
        TCQ_BARRIER();
        const bool zero = !tcq_encode_block(e);

        const int seam  = zero ? 0 : tcq_state_after(e->best.u, n);
        int       state = seam;
        TCQ_EACH(j, n) {
            e->q[j] = 0;
        }
        TCQ_BARRIER();
        TCQ_SINGLE {
            if (!zero) {
                tcq_add_slots(t, e->best.slots, e->q);
            }
        }
        TCQ_BARRIER();
        for (int i = 0; i < n; i += section) {
            if (zero) {
                TCQ_EACH(k, section) {
                    e->error[i + k] = x[b + i + k];
                }
                TCQ_BARRIER();
            } else {
                const float * w = feedback->section_weights + (b + i)/section*(section + feedback->look_ahead);
                tcq_decide_section(e, x + b, w, i, feedback, seam, &state);
            }
            tcq_propagate(x, e->error + i, propagation + (b + i)*n_per_row, n_per_row, section, b + i + section, b + n);
        }
        tcq_propagate(x, e->error, propagation + b*n_per_row, n_per_row, n, b + n, n_per_row);
        tcq_pack_block(e, zero, dst + b/n*t->type_size);
    }
}

} // namespace tcq_device
