// Viterbi search over the 256 states of the TCQ code.
//
// State s is the last 8 path bits, the newest in bit 0. Its predecessors are m = s >> 1 and m + 128, and the window of
// either step is (top bit of the predecessor) << 8 | s. Flipping the oldest or the newest bit of a window flips z3 and
// nothing else, so the states 2m and 2m + 1 share a butterfly:
//     next[2m]     = min(cost[m] + metric[z],     cost[m + 128] + metric[z ^ 8])
//     next[2m + 1] = min(cost[m] + metric[z ^ 8], cost[m + 128] + metric[z]),     z = subset[2m]
// Step costs are at most TCQ_MAX_METRIC and any state reaches any other in 8 steps, so no cost is more than
// 8*TCQ_MAX_METRIC above the least of 8 steps before. Subtracting a minimum every 8 steps keeps 16 bits exact; we subtract
// the previous step's, which is already available.

#include "ggml-tcq-trellis.h"
#include "ggml-tcq-tables.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define TCQ_PREFETCH(p) __builtin_prefetch(p)
#else
#define TCQ_PREFETCH(p) ((void) (p))
#endif

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#include <immintrin.h>
#define TCQ_X86
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

static uint32_t tcq_advance_ref(const tcq_code * code, uint16_t (*cost)[TCQ_STATES], const uint16_t (*metric)[TCQ_SUBSETS],
                                int stride, int n) {
    uint32_t subtracted = 0;

    for (int i = 0; i < n; ++i, metric += stride) {
        uint16_t * next = cost[i + 1];
        for (int m = 0; m < TCQ_STATES/2; ++m) {
            const int      z = code->subset[2*m];
            const uint16_t p = metric[0][z], q = metric[0][z ^ 8];
            const uint16_t a0 = (uint16_t) (cost[i][m] + p), b0 = (uint16_t) (cost[i][m + TCQ_STATES/2] + q);
            const uint16_t a1 = (uint16_t) (cost[i][m] + q), b1 = (uint16_t) (cost[i][m + TCQ_STATES/2] + p);
            next[2*m]     = b0 < a0 ? b0 : a0;
            next[2*m + 1] = b1 < a1 ? b1 : a1;
        }
        if ((i & 7) == 7) {
            uint16_t least = cost[i][0];
            for (int s = 1; s < TCQ_STATES; ++s) {
                least = cost[i][s] < least ? cost[i][s] : least;
            }
            for (int s = 0; s < TCQ_STATES; ++s) {
                next[s] = (uint16_t) (next[s] - least);
            }
            subtracted += least;
        }
    }
    return subtracted;
}

// The SIMD versions look metrics up with shuffles of a step's 32 bytes. The subset is linear over the window's
// bits, so the subsets of a vector of consecutive m are one pattern (m = 0, 1, ...) XOR the subset of its first m.

#ifdef TCQ_X86

#define TCQ_LOAD_256(p) _mm256_loadu_si256((const __m256i *) (p))
#define TCQ_LOAD_512(p) _mm512_loadu_si512((const void *) (p))

__attribute__((target("avx2")))
static uint32_t tcq_advance_avx2(const tcq_code * code, uint16_t (*cost)[TCQ_STATES], const uint16_t (*metric)[TCQ_SUBSETS],
                                 int stride, int n) {
    uint32_t subtracted = 0;

    for (int i = 0; i < n; ++i, metric += stride) {
        const uint16_t * from = cost[i];
        uint16_t       * to   = cost[i + 1];

        const __m256i low8  = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) metric[0]));
        const __m256i high8 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) (metric[0] + 8)));
        __m256i metrics[TCQ_SUBSETS];
        for (int k = 0; k < 8; ++k) {
            const __m256i pattern = TCQ_LOAD_256(code->pattern[k]);
            const __m256i is_high = _mm256_slli_epi16(pattern, 3); // bit 7: bit 4 of the pattern
            const __m256i a = _mm256_shuffle_epi8(low8,  pattern);
            const __m256i b = _mm256_shuffle_epi8(high8, pattern);
            metrics[k]     = _mm256_blendv_epi8(a, b, is_high);
            metrics[k ^ 8] = _mm256_blendv_epi8(b, a, is_high);
        }
        for (int m = 0; m < TCQ_STATES/2; m += 16) {
            const int     z = code->subset[2*m];
            const __m256i a = TCQ_LOAD_256(from + m);
            const __m256i b = TCQ_LOAD_256(from + m + TCQ_STATES/2);
            const __m256i p = metrics[z];
            const __m256i q = metrics[z ^ 8];

            const __m256i even = _mm256_min_epu16(_mm256_add_epi16(a, p), _mm256_add_epi16(b, q));
            const __m256i odd  = _mm256_min_epu16(_mm256_add_epi16(a, q), _mm256_add_epi16(b, p));
            const __m256i low  = _mm256_unpacklo_epi16(even, odd);
            const __m256i high = _mm256_unpackhi_epi16(even, odd);
            _mm256_storeu_si256((__m256i *) (to + 2*m),      _mm256_permute2x128_si256(low, high, 0x20));
            _mm256_storeu_si256((__m256i *) (to + 2*m + 16), _mm256_permute2x128_si256(low, high, 0x31));
        }
        if ((i & 7) == 7) {
            __m256i least = TCQ_LOAD_256(from);
            for (int s = 16; s < TCQ_STATES; s += 16) {
                least = _mm256_min_epu16(least, TCQ_LOAD_256(from + s));
            }
            const __m128i halves = _mm_min_epu16(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
            const __m128i minpos = _mm_minpos_epu16(halves);
            const __m256i offset = _mm256_broadcastw_epi16(minpos);
            for (int s = 0; s < TCQ_STATES; s += 16) {
                _mm256_storeu_si256((__m256i *) (to + s), _mm256_sub_epi16(TCQ_LOAD_256(to + s), offset));
            }
            subtracted += (uint16_t) _mm_extract_epi16(minpos, 0);
        }
    }
    return subtracted;
}

__attribute__((target("avx512f,avx512bw")))
static uint32_t tcq_advance_avx512(const tcq_code * code, uint16_t (*cost)[TCQ_STATES], const uint16_t (*metric)[TCQ_SUBSETS],
                                   int stride, int n) {
    // lanes 2k and 2k + 1 of the lower or upper half: lane k of the first vector and of the second
    static const uint16_t alternate[2][32] = {
        {  0, 32,  1, 33,  2, 34,  3, 35,  4, 36,  5, 37,  6, 38,  7, 39,
           8, 40,  9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47 },
        { 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
          24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63 },
    };
    const __m512i lower = TCQ_LOAD_512(alternate[0]);
    const __m512i upper = TCQ_LOAD_512(alternate[1]);

    __m512i pattern[4][2];
    for (int v = 0; v < 4; ++v) {
        // of byte pairs 2z, 2z + 1, the five bits that vpermw reads are z
        pattern[v][0] = _mm512_srli_epi16(TCQ_LOAD_512(code->pattern[code->subset[64*v]]), 1);
        pattern[v][1] = _mm512_srli_epi16(TCQ_LOAD_512(code->pattern[code->subset[64*v] ^ 8]), 1);
    }
    __m512i c[8];
    for (int v = 0; v < 8; ++v) {
        c[v] = TCQ_LOAD_512(cost[0] + 32*v);
    }
    uint32_t subtracted = 0;

    for (int i = 0; i < n; ++i, metric += stride) {
        const __m512i bm = _mm512_castsi256_si512(TCQ_LOAD_256(metric[0]));
        __m512i next[8];

        for (int v = 0; v < 4; ++v) {
            const __m512i p = _mm512_permutexvar_epi16(pattern[v][0], bm);
            const __m512i q = _mm512_permutexvar_epi16(pattern[v][1], bm);

            const __m512i even = _mm512_min_epu16(_mm512_add_epi16(c[v], p), _mm512_add_epi16(c[v + 4], q));
            const __m512i odd  = _mm512_min_epu16(_mm512_add_epi16(c[v], q), _mm512_add_epi16(c[v + 4], p));
            next[2*v]     = _mm512_permutex2var_epi16(even, lower, odd);
            next[2*v + 1] = _mm512_permutex2var_epi16(even, upper, odd);
        }
        if ((i & 7) == 7) {
            __m512i least = c[0];
            for (int v = 1; v < 8; ++v) {
                least = _mm512_min_epu16(least, c[v]);
            }
            const __m256i quarter = _mm256_min_epu16(_mm512_castsi512_si256(least), _mm512_extracti64x4_epi64(least, 1));
            const __m128i eighth  = _mm_min_epu16(_mm256_castsi256_si128(quarter), _mm256_extracti128_si256(quarter, 1));
            const __m128i minpos  = _mm_minpos_epu16(eighth);
            const __m512i offset  = _mm512_broadcastw_epi16(minpos);
            for (int v = 0; v < 8; ++v) {
                next[v] = _mm512_sub_epi16(next[v], offset);
            }
            subtracted += (uint16_t) _mm_extract_epi16(minpos, 0);
        }
        for (int v = 0; v < 8; ++v) {
            c[v] = next[v];
            _mm512_storeu_si512((void *) (cost[i + 1] + 32*v), c[v]);
        }
    }
    return subtracted;
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

static uint32_t tcq_advance_neon(const tcq_code * code, uint16_t (*cost)[TCQ_STATES], const uint16_t (*metric)[TCQ_SUBSETS],
                                 int stride, int n) {
    uint32_t subtracted = 0;

    for (int i = 0; i < n; ++i, metric += stride) {
        const uint16_t * from = cost[i];
        uint16_t       * to   = cost[i + 1];

        const uint8x16x2_t bm = vld1q_u8_x2((const uint8_t *) metric[0]);
        uint16x8_t metrics[TCQ_SUBSETS];
        for (int k = 0; k < TCQ_SUBSETS; ++k) {
            metrics[k] = vreinterpretq_u16_u8(vqtbl2q_u8(bm, vld1q_u8(code->pattern[k])));
        }
        for (int m = 0; m < TCQ_STATES/2; m += 8) {
            const uint16x8_t p = metrics[code->subset[2*m]];
            const uint16x8_t q = metrics[code->subset[2*m] ^ 8];
            const uint16x8_t a = vld1q_u16(from + m);
            const uint16x8_t b = vld1q_u16(from + m + TCQ_STATES/2);

            const uint16x8_t even = vminq_u16(vaddq_u16(a, p), vaddq_u16(b, q));
            const uint16x8_t odd  = vminq_u16(vaddq_u16(a, q), vaddq_u16(b, p));
            vst1q_u16(to + 2*m,     vzip1q_u16(even, odd));
            vst1q_u16(to + 2*m + 8, vzip2q_u16(even, odd));
        }
        if ((i & 7) == 7) {
            uint16x8_t least = vld1q_u16(from);
            for (int s = 8; s < TCQ_STATES; s += 8) {
                least = vminq_u16(least, vld1q_u16(from + s));
            }
            const uint16_t   offset  = vminvq_u16(least);
            const uint16x8_t offsets = vdupq_n_u16(offset);
            for (int s = 0; s < TCQ_STATES; s += 8) {
                vst1q_u16(to + s, vsubq_u16(vld1q_u16(to + s), offsets));
            }
            subtracted += offset;
        }
    }
    return subtracted;
}

#endif

// bins of half a level unit, clamped to the levels' range
static inline int tcq_bin(float x) {
    const float most  = TCQ_MAX_LEVEL + 0.5f, least = -TCQ_MAX_LEVEL - 1.0f;
    const float below = x     < most  ? x     : most;
    const float inner = below > least ? below : least;
    return (int) (2.0f*inner + 128.0f); // not negative: the cast is floor
}

// metrics are above the common minimum, and clamped: outliers only need to be prohibitive
static float tcq_set_targets_ref(tcq_trellis * t, int first, const float * x, const float * w, int n, float unit) {
    const float per_unit = 1.0f/unit;
    float common_cost = 0.0f;

    for (int i = 0; i < n; ++i) {
        const int   bin    = tcq_bin(x[i]);
        const float weight = w[i]*per_unit;
        const float off    = x[i] - t->nearest[bin];
        const float least  = off*off;
        common_cost += weight*least;
        for (int z = 0; z < TCQ_SUBSETS; ++z) {
            const float e      = x[i] - t->level[bin][z];
            const float scaled = weight*(e*e - least) + 0.5f;
            t->metric[first + i][z] = (uint16_t) (scaled < TCQ_MAX_METRIC ? scaled : TCQ_MAX_METRIC);
        }
        memcpy(t->step_lo[first + i], t->lo[bin], TCQ_SUBSETS);
    }
    return common_cost;
}

#ifdef TCQ_X86

__attribute__((target("avx2")))
static float tcq_set_targets_avx2(tcq_trellis * t, int first, const float * x, const float * w, int n, float unit) {
    const float  per_unit = 1.0f/unit;
    const __m256 half     = _mm256_set1_ps(0.5f);
    const __m256 most     = _mm256_set1_ps(TCQ_MAX_METRIC);
    float common_cost = 0.0f;

    for (int i = 0; i < n; ++i) {
        const int   bin    = tcq_bin(x[i]);
        const float weight = w[i]*per_unit;
        const float off    = x[i] - t->nearest[bin];
        const float least  = off*off;
        common_cost += weight*least;

        __m256i metric[2];
        for (int h = 0; h < 2; ++h) {
            const __m256 e      = _mm256_sub_ps(_mm256_set1_ps(x[i]), _mm256_loadu_ps(t->level[bin] + 8*h));
            const __m256 above  = _mm256_sub_ps(_mm256_mul_ps(e, e), _mm256_set1_ps(least));
            const __m256 scaled = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(weight), above), half);
            metric[h] = _mm256_cvttps_epi32(_mm256_min_ps(scaled, most));
        }
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(metric[0], metric[1]), 0xd8);
        _mm256_storeu_si256((__m256i *) t->metric[first + i], packed);
        memcpy(t->step_lo[first + i], t->lo[bin], TCQ_SUBSETS);
    }
    return common_cost;
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
static float tcq_set_targets_avx512(tcq_trellis * t, int first, const float * x, const float * w, int n, float unit) {
    const float  per_unit = 1.0f/unit;
    const __m512 half     = _mm512_set1_ps(0.5f);
    const __m512 most     = _mm512_set1_ps(TCQ_MAX_METRIC);
    float common_cost = 0.0f;

    for (int i = 0; i < n; ++i) {
        const int   bin    = tcq_bin(x[i]);
        const float weight = w[i]*per_unit;
        const float off    = x[i] - t->nearest[bin];
        const float least  = off*off;
        common_cost += weight*least;

        const __m512 e      = _mm512_sub_ps(_mm512_set1_ps(x[i]), _mm512_loadu_ps(t->level[bin]));
        const __m512 above  = _mm512_sub_ps(_mm512_mul_ps(e, e), _mm512_set1_ps(least));
        const __m512 scaled = _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(weight), above), half);
        const __m512i metric = _mm512_cvttps_epi32(_mm512_min_ps(scaled, most));
        _mm256_storeu_si256((__m256i *) t->metric[first + i], _mm512_cvtepi32_epi16(metric));
        memcpy(t->step_lo[first + i], t->lo[bin], TCQ_SUBSETS);
    }
    return common_cost;
}

#endif

static int tcq_simd_cap = 2; // only tests change it, before they encode

int tcq_trellis_simd(void) {
#ifdef TCQ_X86
    const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    const int  have   = avx512 ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
#elif defined(__ARM_NEON) && defined(__aarch64__)
    const int have = 1;
#else
    const int have = 0;
#endif
    return have < tcq_simd_cap ? have : tcq_simd_cap;
}

int tcq_trellis_cap_simd(int cap) {
    tcq_simd_cap = cap;
    return tcq_trellis_simd();
}

float tcq_cost_unit(const tcq_format * f, const float * w, int n) {
    float sum_root = 0.0f;
    for (int i = 0; i < n; ++i) {
        sum_root += sqrtf(w[i]);
    }
    const float root = sum_root/n*f->level_rms/(float) (1 << f->rate);
    return root*root/32.0f;
}

static int tcq_reverse_bits(int x, int n) {
    int reversed = 0;
    for (int b = 0; b < n; ++b) {
        reversed |= (x >> b & 1) << (n - 1 - b);
    }
    return reversed;
}

static void tcq_code_init(tcq_code * code, bool backward) {
    for (int window = 0; window < 2*TCQ_STATES; ++window) {
        code->subset[window] = tcq_subset[backward ? tcq_reverse_bits(window, 9) : window];
    }
    for (int k = 0; k < TCQ_SUBSETS; ++k) {
        for (int m = 0; m < 32; ++m) {
            code->pattern[k][2*m]     = (uint8_t) (2*(code->subset[2*m] ^ k));
            code->pattern[k][2*m + 1] = (uint8_t) (2*(code->subset[2*m] ^ k) + 1);
        }
    }
}

void tcq_trellis_init(tcq_trellis * t, const tcq_format * f) {
    t->f           = f;
    t->advance     = tcq_advance_ref;
    t->set_targets = tcq_set_targets_ref;
#ifdef TCQ_X86
    const int simd = tcq_trellis_simd();
    if (simd >= 2) {
        t->advance     = tcq_advance_avx512;
        t->set_targets = tcq_set_targets_avx512;
    } else if (simd == 1) {
        t->advance     = tcq_advance_avx2;
        t->set_targets = tcq_set_targets_avx2;
    }
#elif defined(__ARM_NEON) && defined(__aarch64__)
    if (tcq_trellis_simd() >= 1) {
        t->advance = tcq_advance_neon;
    }
#endif
    tcq_code_init(&t->forward,  false);
    tcq_code_init(&t->backward, true);
    for (int s = 0; s < TCQ_STATES; ++s) {
        t->mirrored[s] = (uint8_t) tcq_reverse_bits(s, 8);
    }

    // levels are integers, so floor(2x) decides which is nearest, of a subset (where they ascend with lo) and of all
    for (int i = 0; i < 256; ++i) {
        const int x4 = 2*(i - 128) + 1; // four times the middle of the bin
        int nearest = 0;
        for (int z = 0; z < TCQ_SUBSETS; ++z) {
            int l = 0;
            while (l + 1 < f->n_lo && x4 > 2*(f->levels[z | l << TCQ_N_PARITIES] + f->levels[z | (l + 1) << TCQ_N_PARITIES])) {
                ++l;
            }
            t->lo   [i][z] = (uint8_t) l;
            t->level[i][z] = f->levels[z | l << TCQ_N_PARITIES];
            if (z == 0 || abs(x4 - 4*f->levels[z | l << TCQ_N_PARITIES]) < abs(x4 - 4*nearest)) {
                nearest = f->levels[z | l << TCQ_N_PARITIES];
            }
        }
        t->nearest[i] = nearest;
    }
}

static int tcq_cheapest_state(const uint16_t * cost) {
    uint16_t least = cost[0];
    for (int s = 1; s < TCQ_STATES; ++s) {
        least = cost[s] < least ? cost[s] : least;
    }
    int best = 0;
    while (cost[best] != least) {
        ++best;
    }
    return best;
}

// costs of all states after 0, 1, .. n steps from step `first` on, less what is returned; start is a state, or -1 for any
static uint32_t tcq_run(tcq_trellis * t, int first, int n, int start, uint16_t (*cost)[TCQ_STATES]) {
    const uint16_t others = start < 0 ? 0 : TCQ_UNREACHABLE;
    for (int s = 0; s < TCQ_STATES; ++s) {
        cost[0][s] = others;
    }
    if (start >= 0) {
        cost[0][start] = 0;
    }
    return t->advance(&t->forward, cost, (const uint16_t (*)[TCQ_SUBSETS]) t->metric + first, 1, n);
}

// path and lo bits of the first n_keep of n steps that end in state s; returns the state after n_keep steps
static int tcq_trace_back(const tcq_trellis * t, int first, int n, int s, const uint16_t (*cost)[TCQ_STATES],
                          int n_keep, uint8_t * u, uint8_t * lo) {
    const uint8_t * subset = t->forward.subset;

    int kept = s;
    int z    = subset[s];
    for (int i = n - 1; i >= 0; --i) {
        if (i == n_keep - 1) {
            kept = s;
        }
        // everything that the next step may read: early costs are in L2 by now
        for (int k = 0; k < 4 && i > 0; ++k) {
            TCQ_PREFETCH(&cost[i - 1][s >> 2 | k*TCQ_STATES/4]);
        }
        // the second predecessor only if it is better; its window has another z3
        const uint16_t * metric = t->metric[first + i];
        const int second = cost[i][s >> 1 | TCQ_STATES/2] + metric[z ^ 8] < cost[i][s >> 1] + metric[z];
        if (i < n_keep) {
            u [i] = (uint8_t) (s & 1);
            lo[i] = t->step_lo[first + i][z ^ second << 3];
        }
        // subsets are linear: the lookup does not wait for the decision
        z = subset[s >> 1] ^ (-second & subset[TCQ_STATES/2]);
        s = s >> 1 | second << 7;
    }
    return kept;
}

int tcq_trellis_search(tcq_trellis * t, int first, int n, int start, int end, int n_keep, uint8_t * u, uint8_t * lo) {
    tcq_run(t, first, n, start, t->cost);

    const int s = end < 0 ? tcq_cheapest_state(t->cost[n]) : end;
    return tcq_trace_back(t, first, n, s, (const uint16_t (*)[TCQ_STATES]) t->cost, n_keep, u, lo);
}

float tcq_trellis_set_cycle(tcq_trellis * t, const float * x, const float * w, float unit) {
    const int   n           = t->f->block_size;
    const float common_cost = t->set_targets(t, TCQ_SETTLE, x, w, n, unit);
    memcpy(t->metric[0], t->metric[n], sizeof(t->metric[0])*TCQ_SETTLE);
    return common_cost;
}

void tcq_trellis_seams(tcq_trellis * t, int n, uint8_t * seams) {
    uint16_t (*after)[TCQ_STATES] = t->cost, (*before)[TCQ_STATES] = t->cost + TCQ_SETTLE + 1;

    memset(after[0], 0, sizeof(after[0]));
    t->advance(&t->backward, after, (const uint16_t (*)[TCQ_SUBSETS]) t->metric + 2*TCQ_SETTLE - 1, -1, TCQ_SETTLE);
    tcq_run(t, 0, TCQ_SETTLE, -1, before);

    int32_t key[TCQ_STATES]; // orders states by cost, then by number
    for (int s = 0; s < TCQ_STATES; ++s) {
        key[s] = (before[TCQ_SETTLE][s] + after[TCQ_SETTLE][t->mirrored[s]])*TCQ_STATES + s;
    }
    for (int k = 0; k < n; ++k) {
        int32_t least = key[0];
        for (int s = 1; s < TCQ_STATES; ++s) {
            least = key[s] < least ? key[s] : least;
        }
        seams[k] = (uint8_t) (least % TCQ_STATES);
        key[seams[k]] = INT32_MAX;
    }
}

uint32_t tcq_trellis_search_cycle(tcq_trellis * t, const uint8_t * seams, int n_seams, int * best) {
    const int n = t->f->block_size;

    uint32_t least_cost = 0;
    for (int k = 0; k < n_seams; ++k) {
        uint16_t     (*cost)[TCQ_STATES] = t->cost + k*(n + 1);
        const uint32_t path_cost = tcq_run(t, TCQ_SETTLE, n, seams[k], cost) + cost[n][seams[k]];
        if (k == 0 || path_cost < least_cost) {
            least_cost = path_cost;
            *best      = k;
        }
    }
    return least_cost;
}

void tcq_trellis_cycle(const tcq_trellis * t, const uint8_t * seams, int k, uint8_t * u, uint8_t * lo) {
    const int n = t->f->block_size;
    tcq_trace_back(t, TCQ_SETTLE, n, seams[k], (const uint16_t (*)[TCQ_STATES]) t->cost + k*(n + 1), n, u, lo);
}
