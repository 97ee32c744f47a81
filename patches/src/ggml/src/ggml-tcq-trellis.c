// Viterbi search over the 256 states of the TCQ code.
//
// State s is the last 8 path bits, the newest in bit 0. Its predecessors are m = s >> 1 and m + 128, and the window of
// either step is (top bit of the predecessor) << 8 | s. Flipping the oldest or the newest bit of a window flips z2 and
// nothing else, so the states 2m and 2m + 1 share a butterfly:
//     next[2m]     = min(cost[m] + metric[z],     cost[m + 128] + metric[z ^ 4])
//     next[2m + 1] = min(cost[m] + metric[z ^ 4], cost[m + 128] + metric[z]),     z = subset[2m]
// Step costs are at most TCQ_MAX_METRIC and any state reaches any other in 8 steps, so the costs of all states lie
// within 8*TCQ_MAX_METRIC; subtracting the least every 8 steps keeps 16 bits exact.

#include "ggml-tcq-trellis.h"
#include "ggml-tcq-tables.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define TCQ_MAX_METRIC  4095

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#include <immintrin.h>
#define TCQ_X86
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

// survivors: bit m & 31 of word 2*(m >> 5) + (s & 1), m = s >> 1
static inline int tcq_survivor(const uint32_t * survivors, int s) {
    return survivors[2*(s >> 6) + (s & 1)] >> (s >> 1 & 31) & 1;
}

static inline uint16_t tcq_add_saturate(uint16_t a, uint16_t b) {
    const unsigned c = (unsigned) a + b;
    return (uint16_t) (c > 0xffff ? 0xffff : c);
}

static void tcq_advance_ref(const tcq_code * code, uint16_t * cost, const uint16_t (*metric)[8],
                            uint32_t (*survivors)[TCQ_STATES/32], int n) {
    for (int i = 0; i < n; ++i) {
        uint16_t next[TCQ_STATES];
        memset(survivors[i], 0, sizeof(survivors[i]));
        for (int m = 0; m < TCQ_STATES/2; ++m) {
            const int      z = code->subset[2*m];
            const uint16_t p = metric[i][z], q = metric[i][z ^ 4];
            const uint16_t a0 = tcq_add_saturate(cost[m], p), b0 = tcq_add_saturate(cost[m + TCQ_STATES/2], q);
            const uint16_t a1 = tcq_add_saturate(cost[m], q), b1 = tcq_add_saturate(cost[m + TCQ_STATES/2], p);
            next[2*m]     = b0 < a0 ? b0 : a0;
            next[2*m + 1] = b1 < a1 ? b1 : a1;
            survivors[i][2*(m >> 5)]     |= (uint32_t) (b0 < a0) << (m & 31);
            survivors[i][2*(m >> 5) + 1] |= (uint32_t) (b1 < a1) << (m & 31);
        }
        memcpy(cost, next, sizeof(next));
        if ((i & 7) == 7) {
            uint16_t least = cost[0];
            for (int s = 1; s < TCQ_STATES; ++s) {
                least = cost[s] < least ? cost[s] : least;
            }
            for (int s = 0; s < TCQ_STATES; ++s) {
                cost[s] = (uint16_t) (cost[s] - least);
            }
        }
    }
}

// The SIMD versions look metrics up with byte shuffles of a step's 16 bytes. The subset is linear over the window's
// bits, so the subsets of a vector of consecutive m are one pattern (m = 0, 1, ...) XOR the subset of its first m.

#ifdef TCQ_X86

#define TCQ_LOAD_256(p) _mm256_loadu_si256((const __m256i *) (p))
#define TCQ_LOAD_512(p) _mm512_loadu_si512((const void *) (p))

__attribute__((target("avx2")))
static void tcq_advance_avx2(const tcq_code * code, uint16_t * cost, const uint16_t (*metric)[8],
                             uint32_t (*survivors)[TCQ_STATES/32], int n) {
    __m256i pattern[8];
    for (int k = 0; k < 8; ++k) {
        pattern[k] = TCQ_LOAD_256(code->pattern[k]);
    }

    uint16_t buffer[TCQ_STATES];
    uint16_t * from = cost;
    uint16_t * to   = buffer; // n is even: the last step writes to cost again

    for (int i = 0; i < n; ++i) {
        const __m256i bm = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) metric[i]));
        for (int m = 0; m < TCQ_STATES/2; m += 32) {
            __m256i taken[2][2];
            for (int h = 0; h < 2; ++h) {
                const int     z = code->subset[2*(m + 16*h)];
                const __m256i a = TCQ_LOAD_256(from + m + 16*h);
                const __m256i b = TCQ_LOAD_256(from + m + 16*h + TCQ_STATES/2);
                const __m256i p = _mm256_shuffle_epi8(bm, pattern[z]);
                const __m256i q = _mm256_shuffle_epi8(bm, pattern[z ^ 4]);

                const __m256i b0   = _mm256_adds_epu16(b, q);
                const __m256i b1   = _mm256_adds_epu16(b, p);
                const __m256i a0   = _mm256_adds_epu16(a, p);
                const __m256i a1   = _mm256_adds_epu16(a, q);
                const __m256i even = _mm256_min_epu16(a0, b0);
                const __m256i odd  = _mm256_min_epu16(a1, b1);

                taken[0][h] = _mm256_cmpeq_epi16(even, a0); // the first predecessor, also where they tie
                taken[1][h] = _mm256_cmpeq_epi16(odd,  a1);

                const __m256i low  = _mm256_unpacklo_epi16(even, odd);
                const __m256i high = _mm256_unpackhi_epi16(even, odd);
                _mm256_storeu_si256((__m256i *) (to + 2*(m + 16*h)),      _mm256_permute2x128_si256(low, high, 0x20));
                _mm256_storeu_si256((__m256i *) (to + 2*(m + 16*h) + 16), _mm256_permute2x128_si256(low, high, 0x31));
            }
            for (int odd = 0; odd < 2; ++odd) {
                const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(taken[odd][0], taken[odd][1]), 0xd8);
                survivors[i][m/16 + odd] = ~(uint32_t) _mm256_movemask_epi8(bytes);
            }
        }
        if ((i & 7) == 7) {
            __m256i least = TCQ_LOAD_256(to);
            for (int s = 16; s < TCQ_STATES; s += 16) {
                least = _mm256_min_epu16(least, TCQ_LOAD_256(to + s));
            }
            const __m128i halves = _mm_min_epu16(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
            const __m256i offset = _mm256_broadcastw_epi16(_mm_minpos_epu16(halves));
            for (int s = 0; s < TCQ_STATES; s += 16) {
                _mm256_storeu_si256((__m256i *) (to + s), _mm256_sub_epi16(TCQ_LOAD_256(to + s), offset));
            }
        }
        uint16_t * swap = from; from = to; to = swap;
    }
}

__attribute__((target("avx512f,avx512bw")))
static void tcq_advance_avx512(const tcq_code * code, uint16_t * cost, const uint16_t (*metric)[8],
                               uint32_t (*survivors)[TCQ_STATES/32], int n) {
    __m512i pattern[8];
    for (int k = 0; k < 8; ++k) {
        pattern[k] = TCQ_LOAD_512(code->pattern[k]);
    }

    const __m512i lower = _mm512_setr_epi64(0, 1,  8,  9, 2, 3, 10, 11);
    const __m512i upper = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);

    __m512i c[8];
    for (int v = 0; v < 8; ++v) {
        c[v] = TCQ_LOAD_512(cost + 32*v);
    }

    for (int i = 0; i < n; ++i) {
        const __m512i bm = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) metric[i]));
        __m512i next[8];

        for (int v = 0; v < 4; ++v) {
            const int     z = code->subset[64*v];
            const __m512i p = _mm512_shuffle_epi8(bm, pattern[z]);
            const __m512i q = _mm512_shuffle_epi8(bm, pattern[z ^ 4]);

            const __m512i a0   = _mm512_adds_epu16(c[v],     p);
            const __m512i a1   = _mm512_adds_epu16(c[v],     q);
            const __m512i b0   = _mm512_adds_epu16(c[v + 4], q);
            const __m512i b1   = _mm512_adds_epu16(c[v + 4], p);
            const __m512i even = _mm512_min_epu16(a0, b0);
            const __m512i odd  = _mm512_min_epu16(a1, b1);

            survivors[i][2*v]     = _mm512_cmplt_epu16_mask(b0, a0);
            survivors[i][2*v + 1] = _mm512_cmplt_epu16_mask(b1, a1);

            const __m512i low  = _mm512_unpacklo_epi16(even, odd);
            const __m512i high = _mm512_unpackhi_epi16(even, odd);
            next[2*v]     = _mm512_permutex2var_epi64(low, lower, high);
            next[2*v + 1] = _mm512_permutex2var_epi64(low, upper, high);
        }
        if ((i & 7) == 7) {
            __m512i least = next[0];
            for (int v = 1; v < 8; ++v) {
                least = _mm512_min_epu16(least, next[v]);
            }
            const __m256i quarter = _mm256_min_epu16(_mm512_castsi512_si256(least), _mm512_extracti64x4_epi64(least, 1));
            const __m128i eighth  = _mm_min_epu16(_mm256_castsi256_si128(quarter), _mm256_extracti128_si256(quarter, 1));
            const __m512i offset  = _mm512_broadcastw_epi16(_mm_minpos_epu16(eighth));
            for (int v = 0; v < 8; ++v) {
                next[v] = _mm512_sub_epi16(next[v], offset);
            }
        }
        memcpy(c, next, sizeof(c));
    }
    for (int v = 0; v < 8; ++v) {
        _mm512_storeu_si512((void *) (cost + 32*v), c[v]);
    }
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

static void tcq_advance_neon(const tcq_code * code, uint16_t * cost, const uint16_t (*metric)[8],
                             uint32_t (*survivors)[TCQ_STATES/32], int n) {
    static const uint8_t bit_of_lane[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    const uint8x16_t bits = vld1q_u8(bit_of_lane);

    uint16_t buffer[TCQ_STATES];
    uint16_t * from = cost;
    uint16_t * to   = buffer; // n is even: the last step writes to cost again

    for (int i = 0; i < n; ++i) {
        const uint8x16_t bm = vreinterpretq_u8_u16(vld1q_u16(metric[i]));
        uint16x8_t metrics[8];
        for (int k = 0; k < 8; ++k) {
            metrics[k] = vreinterpretq_u16_u8(vqtbl1q_u8(bm, vld1q_u8(code->pattern[k])));
        }
        for (int m = 0; m < TCQ_STATES/2; m += 32) {
            uint8x16_t taken[2][2]; // [odd][half]: lanes of 0xff where the second predecessor is better
            for (int h = 0; h < 2; ++h) {
                uint16x8_t better[2][2];
                for (int g = 0; g < 2; ++g) {
                    const int        at = m + 16*h + 8*g;
                    const int        z  = code->subset[2*at];
                    const uint16x8_t a  = vld1q_u16(from + at);
                    const uint16x8_t b  = vld1q_u16(from + at + TCQ_STATES/2);

                    const uint16x8_t a0   = vqaddq_u16(a, metrics[z]);
                    const uint16x8_t a1   = vqaddq_u16(a, metrics[z ^ 4]);
                    const uint16x8_t b0   = vqaddq_u16(b, metrics[z ^ 4]);
                    const uint16x8_t b1   = vqaddq_u16(b, metrics[z]);
                    const uint16x8_t even = vminq_u16(a0, b0);
                    const uint16x8_t odd  = vminq_u16(a1, b1);

                    better[0][g] = vcltq_u16(b0, a0);
                    better[1][g] = vcltq_u16(b1, a1);
                    vst1q_u16(to + 2*at,     vzip1q_u16(even, odd));
                    vst1q_u16(to + 2*at + 8, vzip2q_u16(even, odd));
                }
                for (int odd = 0; odd < 2; ++odd) {
                    taken[odd][h] = vandq_u8(bits, vuzp1q_u8(vreinterpretq_u8_u16(better[odd][0]),
                                                             vreinterpretq_u8_u16(better[odd][1])));
                }
            }
            const uint8x16_t even = vpaddq_u8(taken[0][0], taken[0][1]);
            const uint8x16_t odd  = vpaddq_u8(taken[1][0], taken[1][1]);
            const uint8x16_t both = vpaddq_u8(even, odd);
            vst1_u8((uint8_t *) &survivors[i][m/16], vget_low_u8(vpaddq_u8(both, both)));
        }
        if ((i & 7) == 7) {
            uint16x8_t least = vld1q_u16(to);
            for (int s = 8; s < TCQ_STATES; s += 8) {
                least = vminq_u16(least, vld1q_u16(to + s));
            }
            const uint16x8_t offset = vdupq_n_u16(vminvq_u16(least));
            for (int s = 0; s < TCQ_STATES; s += 8) {
                vst1q_u16(to + s, vsubq_u16(vld1q_u16(to + s), offset));
            }
        }
        uint16_t * swap = from; from = to; to = swap;
    }
}

#endif

// bins of half a level unit, clamped to the levels' range
static inline int tcq_bin(float x) {
    const float above = x     < 63.5f  ? x     : 63.5f;
    const float inner = above > -64.0f ? above : -64.0f;
    return (int) (2.0f*inner + 128.0f); // not negative: the cast is floor
}

static void tcq_set_targets_ref(tcq_trellis * t, int first, const float * x, const float * w, int n, float unit) {
    const float per_unit = 1.0f/unit;

    for (int i = 0; i < n; ++i) {
        const int bin = tcq_bin(x[i]);

        float cost[8], least = FLT_MAX;
        for (int z = 0; z < 8; ++z) {
            const float e = x[i] - t->level[bin][z];
            cost[z] = e*e;
            least   = cost[z] < least ? cost[z] : least;
        }
        // what every path pays cancels; what is out of all proportion is merely forbidding
        const float weight = w[i]*per_unit;
        for (int z = 0; z < 8; ++z) {
            const float scaled = weight*(cost[z] - least) + 0.5f;
            t->metric[first + i][z] = (uint16_t) (scaled < TCQ_MAX_METRIC ? scaled : TCQ_MAX_METRIC);
        }
        memcpy(t->step_lo[first + i], t->lo[bin], 8);
    }
}

#ifdef TCQ_X86

__attribute__((target("avx2")))
static void tcq_set_targets_avx2(tcq_trellis * t, int first, const float * x, const float * w, int n, float unit) {
    const float  per_unit = 1.0f/unit;
    const __m256 half     = _mm256_set1_ps(0.5f);
    const __m256 most     = _mm256_set1_ps(TCQ_MAX_METRIC);

    for (int i = 0; i < n; ++i) {
        const int    bin    = tcq_bin(x[i]);
        const __m256 e      = _mm256_sub_ps(_mm256_set1_ps(x[i]), _mm256_loadu_ps(t->level[bin]));
        const __m256 cost   = _mm256_mul_ps(e, e);
        const __m256 least4 = _mm256_min_ps(cost,   _mm256_permute2f128_ps(cost, cost, 1));
        const __m256 least2 = _mm256_min_ps(least4, _mm256_permute_ps(least4, 0x4e));
        const __m256 least  = _mm256_min_ps(least2, _mm256_permute_ps(least2, 0xb1));
        const __m256 scaled = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(w[i]*per_unit), _mm256_sub_ps(cost, least)), half);

        const __m256i metric = _mm256_cvttps_epi32(_mm256_min_ps(scaled, most));
        _mm_storeu_si128((__m128i *) t->metric[first + i],
                         _mm_packus_epi32(_mm256_castsi256_si128(metric), _mm256_extracti128_si256(metric, 1)));
        memcpy(t->step_lo[first + i], t->lo[bin], 8);
    }
}

#endif

static int tcq_simd_cap = 2;

int tcq_trellis_simd(void) {
#ifdef TCQ_X86
    const int have = __builtin_cpu_supports("avx512bw") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
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

float tcq_level_rms(const tcq_format * f) {
    // the largest level, 63, in units of that rms
    static const float reach[6] = { 0.0f, 1.518f, 2.158f, 2.699f, 3.147f, 3.468f };
    return 63.0f/reach[f->rate];
}

float tcq_cost_unit(const tcq_format * f, const float * w, int n) {
    float sum_root = 0.0f;
    for (int i = 0; i < n; ++i) {
        sum_root += sqrtf(w[i]);
    }
    const float root = sum_root/n*tcq_level_rms(f)/(float) (1 << f->rate);
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
    for (int k = 0; k < 8; ++k) {
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
    if (simd >= 1) {
        t->advance     = simd >= 2 ? tcq_advance_avx512 : tcq_advance_avx2;
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

    // levels are integers, so that floor(2x) decides which of a subset's is nearest; they ascend with lo
    for (int z = 0; z < 8; ++z) {
        int l = 0;
        for (int i = 0; i < 256; ++i) {
            const int x4 = 2*(i - 128) + 1; // four times the middle of the bin
            while (l + 1 < f->n_lo && x4 > 2*(f->levels[z | l << 3] + f->levels[z | (l + 1) << 3])) {
                ++l;
            }
            t->lo   [i][z] = (uint8_t) l;
            t->level[i][z] = f->levels[z | l << 3];
        }
    }
}

static int tcq_cheapest_state(const uint16_t * cost) {
    int best = 0;
    for (int s = 1; s < TCQ_STATES; ++s) {
        best = cost[s] < cost[best] ? s : best;
    }
    return best;
}

int tcq_trellis_search(tcq_trellis * t, int first, int n, int start, int end, int n_keep,
                       uint8_t * u, uint8_t * lo, uint32_t * path_cost) {
    memset(t->cost, start < 0 ? 0 : 0xff, sizeof(t->cost)); // 0xffff: additions saturate, it stays above all real costs
    if (start >= 0) {
        t->cost[start] = 0;
    }
    t->advance(&t->forward, t->cost, (const uint16_t (*)[8]) t->metric + first, t->survivors + first, n);

    int      s     = end < 0 ? tcq_cheapest_state(t->cost) : end;
    int      kept  = s;
    uint32_t total = 0;
    for (int i = n - 1; i >= 0; --i) {
        if (i == n_keep - 1) {
            kept = s;
        }
        const int window = tcq_survivor(t->survivors[first + i], s) << 8 | s;
        const int z      = t->forward.subset[window];
        total += t->metric[first + i][z];
        if (i < n_keep) {
            u [i] = (uint8_t) (s & 1);
            lo[i] = t->step_lo[first + i][z];
        }
        s = window >> 1;
    }
    if (path_cost) {
        *path_cost = total;
    }
    return kept;
}

void tcq_trellis_seams(tcq_trellis * t, int first, int n, uint8_t * seams) {
    uint16_t reversed[TCQ_SETTLE][8];
    for (int i = 0; i < TCQ_SETTLE; ++i) {
        memcpy(reversed[i], t->metric[first + TCQ_SETTLE - 1 - i], sizeof(reversed[i]));
    }
    uint16_t after[TCQ_STATES] = { 0 };
    memset(t->cost, 0, sizeof(t->cost));
    t->advance(&t->backward, after, (const uint16_t (*)[8]) reversed, t->survivors, TCQ_SETTLE);
    t->advance(&t->forward, t->cost, (const uint16_t (*)[8]) t->metric + first - TCQ_SETTLE, t->survivors, TCQ_SETTLE);

    for (int s = 0; s < TCQ_STATES; ++s) {
        t->cost[s] = tcq_add_saturate(t->cost[s], after[t->mirrored[s]]);
    }
    for (int k = 0; k < n; ++k) {
        seams[k] = (uint8_t) tcq_cheapest_state(t->cost);
        t->cost[seams[k]] = 0xffff;
    }
}

void tcq_trellis_search_cycle(tcq_trellis * t, const float * x, const float * w, float unit, int n_seams,
                              uint8_t * u, uint8_t * lo) {
    const int n = t->f->block_size;

    t->set_targets(t, TCQ_SETTLE, x, w, n, unit);
    memcpy(t->metric[0], t->metric[n], sizeof(t->metric[0])*TCQ_SETTLE);

    uint8_t seams[TCQ_STATES];
    tcq_trellis_seams(t, TCQ_SETTLE, n_seams, seams);

    uint32_t best_cost;
    tcq_trellis_search(t, TCQ_SETTLE, n, seams[0], seams[0], n, u, lo, &best_cost);
    for (int k = 1; k < n_seams; ++k) {
        uint8_t  ku[QK_TCQ], klo[QK_TCQ];
        uint32_t cost;
        tcq_trellis_search(t, TCQ_SETTLE, n, seams[k], seams[k], n, ku, klo, &cost);
        if (cost < best_cost) {
            best_cost = cost;
            memcpy(u,  ku,  n);
            memcpy(lo, klo, n);
        }
    }
}
