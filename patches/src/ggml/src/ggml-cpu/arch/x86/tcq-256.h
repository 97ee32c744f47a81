// TCQ vec_dots in 256-bit registers. Included by tcq-avx2.c, tcq-gfni.c and tcq-avxvnni.c, which set
// TCQ_ISA (the name of the kernels), TCQ_GFNI and TCQ_VNNI (0 or 1), and the compiler's target.
//
// maddubs multiplies unsigned by signed bytes. Low rates make levels + 64, which cannot saturate (TCQ_BIAS); the others look
// up the sizes of levels, in half a table, and give the signs to the activations.
// `rate` and `k` are always constants after inlining.

#include "ggml-tcq-tables.h"
#include "tcq-side.h"
#include "tcq-simd-tables.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

enum { TCQ_PREFETCH = 1024 };

TCQ_INLINE __m256i tcq_load(const void * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

TCQ_INLINE __m256i tcq_load_twice(const void * p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) p));
}

// 16 entries by bits 0-3 of each byte, 0 where bit 7 is set
TCQ_INLINE __m256i tcq_lookup(const uint8_t * table, __m256i i) {
    return _mm256_shuffle_epi8(tcq_load_twice(table), i);
}

TCQ_INLINE __m256i tcq_lookup_3(const uint8_t * tables, __m256i i0, __m256i i1, __m256i i2) {
    return _mm256_xor_si256(_mm256_xor_si256(tcq_lookup(tables, i0), tcq_lookup(tables + 16, i1)), tcq_lookup(tables + 32, i2));
}

TCQ_INLINE __m256i tcq_low_nibbles(__m256i v) {
    return _mm256_and_si256(v, _mm256_set1_epi8(0x0f));
}

TCQ_INLINE __m256i tcq_high_nibbles(__m256i v) {
    return tcq_low_nibbles(_mm256_srli_epi16(v, 4));
}

// from this rate on there are sizes and signs
enum { TCQ_SIGNED_RATE = TCQ_GFNI ? 2 : 3 };

// of levels. Bit 7 of a byte of `sign` is set where the level is above zero; no byte is zero
typedef struct {
    __m256i size, sign;
} tcq_weights;

TCQ_INLINE const uint8_t * tcq_sizes_chained(int rate) {
    return rate == 2 ? tcq2_sizes_chained : rate == 3 ? tcq3_sizes_chained : rate == 4 ? tcq4_sizes_chained : tcq5_sizes_chained;
}

// rates 2 to 5, by mirrored index with its sign at bit 7
TCQ_INLINE tcq_weights tcq_weights_by_index(int rate, __m256i index) {
    const uint8_t * table = tcq_sizes_chained(rate);
    __m256i         i     = _mm256_and_si256(index, _mm256_set1_epi8(0x7f));

    tcq_weights w = { tcq_lookup(table, i), _mm256_or_si256(index, _mm256_set1_epi8(1)) };
    for (int j = 1; j < 1 << (rate - 2); ++j) {
        i      = _mm256_sub_epi8(i, _mm256_set1_epi8(16));
        w.size = _mm256_xor_si256(w.size, tcq_lookup(table + 16*j, i));
    }
    return w;
}

// level + 64
TCQ_INLINE __m256i tcq_biased(tcq_weights w) {
    return _mm256_sub_epi8(_mm256_set1_epi8(TCQ_BIAS), _mm256_sign_epi8(w.size, w.sign));
}

// w are levels + 64, or sizes of levels and q has their signs
TCQ_INLINE __m256i tcq_mul_add(__m256i acc, __m256i w, __m256i q) {
#if TCQ_VNNI
    return _mm256_dpbusd_avx_epi32(acc, w, q);
#else
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, q), _mm256_set1_epi16(1)));
#endif
}

// acc less the products of two vectors of levels with q
TCQ_INLINE __m256i tcq_mul_sub_2(__m256i acc, const tcq_weights w[2], __m256i q0, __m256i q1) {
    q0 = _mm256_sign_epi8(q0, w[0].sign);
    q1 = _mm256_sign_epi8(q1, w[1].sign);
#if TCQ_VNNI
    return tcq_mul_add(tcq_mul_add(acc, w[0].size, q0), w[1].size, q1);
#else
    // four products of at most 63*128
    const __m256i sums = _mm256_add_epi16(_mm256_maddubs_epi16(w[0].size, q0), _mm256_maddubs_epi16(w[1].size, q1));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
#endif
}

TCQ_INLINE float tcq_hsum(__m256 v) {
    __m128 r = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    r = _mm_add_ps(r, _mm_movehl_ps(r, r));
    r = _mm_add_ss(r, _mm_movehdup_ps(r));
    return _mm_cvtss_f32(r);
}

//
// blocks of 256: byte y of each vector is path byte y, and weight 32k + y of sub-block k
//

TCQ_INLINE __m256i tcq_previous_bytes(__m256i path) {
    return _mm256_alignr_epi8(path, _mm256_permute2x128_si256(path, path, 1), 15);
}

TCQ_INLINE __m256i tcq_load_halves(const void * a, const void * b) {
    const __m256i lower = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) a));
    return _mm256_inserti128_si256(lower, _mm_loadu_si128((const __m128i *) b), 1);
}

// Blocks of 64 of four rows (a quad) are a block of 256 whose 64-bit lanes are the rows: 8 bytes of all of them go to
// v[0], the next ones to v[1], ...
TCQ_INLINE void tcq_load_quad(int rate, const uint8_t * const x[TCQ_DOT_ROWS], __m256i v[5]) {
    for (int i = 0; i + 1 < rate; i += 2) {
        const __m256i even = tcq_load_halves(x[0] + 8*i, x[2] + 8*i);
        const __m256i odd  = tcq_load_halves(x[1] + 8*i, x[3] + 8*i);
        v[i + 0] = _mm256_unpacklo_epi64(even, odd);
        v[i + 1] = _mm256_unpackhi_epi64(even, odd);
    }
    if (rate & 1) {
        int64_t last[TCQ_DOT_ROWS];
        for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
            memcpy(&last[r], x[r] + 8*(rate - 1), 8);
        }
        v[rate - 1] = _mm256_setr_epi64x(last[0], last[1], last[2], last[3]);
    }
}

TCQ_INLINE __m256i tcq_previous_bytes_quad(__m256i path) {
    return _mm256_shuffle_epi8(path, _mm256_setr_epi8(7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14,
                                                      7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14));
}

#if TCQ_GFNI

// what the indices are linear in
typedef struct {
    __m256i cur, prev, lo[4];
} tcq_planes;

TCQ_INLINE tcq_planes tcq_load_planes(int rate, const uint8_t * x) {
    tcq_planes p;
    p.cur  = tcq_load(x);
    p.prev = tcq_previous_bytes(p.cur);
    for (int i = 0; i < rate - 1; ++i) {
        p.lo[i] = tcq_load(x + 32 + 32*i);
    }
    return p;
}

TCQ_INLINE tcq_planes tcq_load_planes_quad(int rate, const uint8_t * const x[TCQ_DOT_ROWS]) {
    __m256i v[5];
    tcq_load_quad(rate, x, v);

    tcq_planes p;
    p.cur  = v[0];
    p.prev = tcq_previous_bytes_quad(v[0]);
    for (int i = 0; i < rate - 1; ++i) {
        p.lo[i] = v[i + 1];
    }
    return p;
}

TCQ_INLINE const uint64_t * tcq_affine_lo(int rate) {
    return rate == 2 ? tcq2_affine_mirrored : rate == 3 ? tcq3_affine_mirrored :
           rate == 4 ? tcq4_affine_mirrored : tcq5_affine_mirrored;
}

TCQ_INLINE const uint64_t * tcq_affine_lo_64(int rate) {
    return rate == 2 ? tcq2_64_affine_mirrored : rate == 3 ? tcq3_64_affine_mirrored :
           rate == 4 ? tcq4_64_affine_mirrored : tcq5_64_affine_mirrored;
}

TCQ_INLINE __m256i tcq_affine(__m256i v, const uint64_t * matrices, int k) {
    return _mm256_gf2p8affine_epi64_epi8(v, tcq_load(matrices + 4*k), 0);
}

TCQ_INLINE __m256i tcq_affine_lo_of(int rate, bool quad, __m256i v, int k) {
    return quad ? _mm256_gf2p8affine_epi64_epi8(v, _mm256_set1_epi64x(tcq_affine_lo_64(rate)[k]), 0) :
                  tcq_affine(v, tcq_affine_lo(rate), k);
}

TCQ_INLINE __m256i tcq_path_index(const tcq_planes * p, int k) {
    return _mm256_xor_si256(tcq_affine(p->cur, tcq_affine_cur, k), tcq_affine(p->prev, tcq_affine_prev, k));
}

// rate 1: level + 64 of sub-block k
TCQ_INLINE __m256i tcq_levels(int rate, bool quad, const tcq_planes * p, int k) {
    GGML_UNUSED(rate);
    GGML_UNUSED(quad);
    return tcq_lookup(tcq1_lut, tcq_path_index(p, k));
}

// rates 2 to 5: sub-block k
TCQ_INLINE tcq_weights tcq_get_weights(int rate, bool quad, const tcq_planes * p, int k) {
    const int plane = rate == 2 || (quad && rate == 4) ? 0 : quad ? k & 1 : k >> 2;
    __m256i   index = _mm256_xor_si256(tcq_path_index(p, k), tcq_affine_lo_of(rate, quad, p->lo[plane], k));
    if (rate >= 4) {
        const int second = rate == 5 ? 2 + plane : quad ? 1 + (k & 1) : 2;
        index = _mm256_xor_si256(index, tcq_affine_lo_of(rate, quad, p->lo[second], 8 + k));
    }
    return tcq_weights_by_index(rate, index);
}

#else

// Planes of two lo bits per weight have those of a sub-block in one of two vectors, from bit `bit` on. In the same order the
// nibbles of all parities lie in four vectors. A plane of one lo bit per weight has it at bit `single`, but for rate 4 of
// blocks of 256, whose plane is the signs'
typedef struct {
    int half, bit, single;
} tcq_place;

TCQ_INLINE tcq_place tcq_place_of(bool quad, int k) {
    const int       single = 4*(k & 1) + 3 - (k >> 1);
    const tcq_place of_quad = { k & 1, (int) (0x2604 >> 4*(k >> 1) & 0xf), single };
    const tcq_place of_256  = { k >> 2, 2*((k & 3) ^ 1), single };
    return quad ? of_quad : of_256;
}

// From rate 3 on, all but signs is mirrored: complemented where the weight's sign bit is set
typedef struct {
    __m256i parities[4];
    __m256i single;   // rates 2 and 4 of blocks of 64: lo bit 0
    __m256i pairs[2]; // the lo bits below; at rate 3 and rate 4 of blocks of 64, the last one of them, as the upper bit
    __m256i upper[2]; // rate 5: lo bit 2, as the upper bit
    __m256i signs[2]; // as the upper bit; bit 0 is set
} tcq_planes;

// nibbles of the path
typedef struct {
    __m256i prev_low, prev_high, cur_low, cur_high;
} tcq_path;

TCQ_INLINE tcq_path tcq_split_path(__m256i prev, __m256i cur) {
    return (tcq_path) { tcq_low_nibbles(prev), tcq_high_nibbles(prev), tcq_low_nibbles(cur), tcq_high_nibbles(cur) };
}

TCQ_INLINE __m256i tcq_lookup_4(const uint8_t * tables, const tcq_path * p) {
    return _mm256_xor_si256(tcq_lookup_3(tables, p->prev_low, p->prev_high, p->cur_low), tcq_lookup(tables + 48, p->cur_high));
}

TCQ_INLINE __m256i tcq_set_bit_0(__m256i v) {
    return _mm256_or_si256(v, _mm256_set1_epi8(1));
}

// the upper bits of pairs are the signs: mirrors the parities, and returns the lower bits, mirrored, as the upper ones
TCQ_INLINE __m256i tcq_mirror_by_pairs(tcq_planes * p, int half, __m256i pairs) {
    __m256i * v = p->parities + 2*half;
    v[0] = _mm256_xor_si256(v[0], tcq_lookup(tcq_mirror_pairs, tcq_low_nibbles(pairs)));
    v[1] = _mm256_xor_si256(v[1], tcq_lookup(tcq_mirror_pairs, tcq_high_nibbles(pairs)));
    p->signs[half] = tcq_set_bit_0(pairs);
    return _mm256_xor_si256(pairs, _mm256_add_epi8(pairs, pairs));
}

// upper bits of pairs to both
TCQ_INLINE __m256i tcq_spread(__m256i pairs) {
    const __m256i upper = _mm256_and_si256(pairs, _mm256_set1_epi8((char) 0xaa));
    return _mm256_or_si256(upper, _mm256_srli_epi16(upper, 1));
}

// what the planes of lo bits hold
TCQ_INLINE void tcq_set_lo(int rate, bool quad, tcq_planes * p, const __m256i * lo) {
    if (rate == 2 || (quad && rate == 4)) {
        p->single = lo[0];
    }
    for (int half = 0; half < 2; ++half) {
        if (rate == 3) {
            p->pairs[half] = tcq_mirror_by_pairs(p, half, lo[half]);
        } else if (rate == 4 && quad) {
            const __m256i   pairs = lo[1 + half];
            const uint8_t * table = tcq4_64_spread + 32*half;
            p->pairs[half] = tcq_mirror_by_pairs(p, half, pairs);
            p->single      = _mm256_xor_si256(p->single, _mm256_xor_si256(tcq_lookup(table,      tcq_low_nibbles(pairs)),
                                                                          tcq_lookup(table + 16, tcq_high_nibbles(pairs))));
        } else if (rate == 4) {
            const __m256i signs  = half == 0 ? tcq_low_nibbles(lo[2]) : tcq_high_nibbles(lo[2]);
            const __m256i spread = tcq_lookup(tcq4_spread, signs);
            __m256i     * v      = p->parities + 2*half;
            v[0] = _mm256_xor_si256(v[0], tcq_lookup(tcq4_mirror,      signs));
            v[1] = _mm256_xor_si256(v[1], tcq_lookup(tcq4_mirror + 16, signs));
            p->pairs[half] = _mm256_xor_si256(lo[half], spread);
            p->signs[half] = tcq_set_bit_0(spread);
        } else if (rate == 5) {
            p->pairs[half] = _mm256_xor_si256(lo[half], tcq_spread(lo[2 + half]));
            p->upper[half] = tcq_mirror_by_pairs(p, half, lo[2 + half]);
        }
    }
}

TCQ_INLINE tcq_planes tcq_load_planes(int rate, const uint8_t * x) {
    const __m256i  cur  = tcq_load(x);
    const tcq_path path = tcq_split_path(tcq_previous_bytes(cur), cur);

    tcq_planes p;
    for (int i = 0; i < 2; ++i) {
        p.parities[i + 0] = tcq_lookup_3(tcq_nibble_pair + 48*i, path.prev_low,  path.prev_high, path.cur_low);
        p.parities[i + 2] = tcq_lookup_3(tcq_nibble_pair + 48*i, path.prev_high, path.cur_low,   path.cur_high);
    }
    __m256i lo[4];
    for (int i = 0; i < rate - 1; ++i) {
        lo[i] = tcq_load(x + 32 + 32*i);
    }
    tcq_set_lo(rate, false, &p, lo);
    return p;
}

TCQ_INLINE tcq_planes tcq_load_planes_quad(int rate, const uint8_t * const x[TCQ_DOT_ROWS]) {
    __m256i v[5];
    tcq_load_quad(rate, x, v);
    const tcq_path path = tcq_split_path(tcq_previous_bytes_quad(v[0]), v[0]);

    tcq_planes p;
    for (int i = 0; i < 4; ++i) {
        p.parities[i] = tcq_lookup_4(tcq_quad_pair + 64*i, &path);
    }
    tcq_set_lo(rate, true, &p, v + 1);
    return p;
}

// b where bit 7 of select's bytes is set, else a. GCC would turn two blends by one vector into a comparison and two blends
TCQ_INLINE __m256i tcq_select(__m256i a, __m256i b, __m256i select) {
    __m256i r;
    __asm__("vpblendvb %3, %2, %1, %0" : "=x"(r) : "x"(a), "x"(b), "x"(select));
    return r;
}

TCQ_INLINE __m256i tcq_to_bit_7(__m256i v, int bit) {
    return bit == 7 ? v : _mm256_slli_epi16(v, 7 - bit);
}

TCQ_INLINE __m256i tcq_parities_at(const tcq_planes * p, tcq_place at) {
    const __m256i v = p->parities[2*at.half + (at.bit >> 2)];
    return at.bit & 2 ? tcq_high_nibbles(v) : tcq_low_nibbles(v);
}

// rates 1 and 2: level + 64 of sub-block k; both packings have the lo bit alike
TCQ_INLINE __m256i tcq_levels(int rate, bool quad, const tcq_planes * p, int k) {
    const tcq_place at = tcq_place_of(quad, k);
    const __m256i   i  = tcq_parities_at(p, at);
    return rate == 1 ? tcq_lookup(tcq1_lut, i) :
                       tcq_select(tcq_lookup(tcq2_lut, i), tcq_lookup(tcq2_lut + 16, i), tcq_to_bit_7(p->single, at.single));
}

// at bit 7: lo bit b, which is not the last, at rates 3 to 5
TCQ_INLINE __m256i tcq_lo_bit_at(int rate, bool quad, const tcq_planes * p, tcq_place at, int b) {
    if (b == 2) {
        return tcq_to_bit_7(p->upper[at.half], at.bit + 1);
    }
    if (rate == 4 && quad && b == 0) {
        return tcq_to_bit_7(p->single, at.single);
    }
    const bool is_lower = b == 0 && rate > 3;
    return tcq_to_bit_7(p->pairs[at.half], is_lower ? at.bit : at.bit + 1);
}

// rates 3 to 5: sub-block k
TCQ_INLINE tcq_weights tcq_get_weights(int rate, bool quad, const tcq_planes * p, int k) {
    const tcq_place at    = tcq_place_of(quad, k);
    const __m256i   i     = tcq_parities_at(p, at);
    const uint8_t * table = rate == 3 ? tcq3_sizes : rate == 4 ? tcq4_sizes : tcq5_sizes;

    __m256i r[8];
    int     n = 1 << (rate - 2);
    for (int j = 0; j < n; ++j) {
        r[j] = tcq_lookup(table + 16*j, i);
    }
    for (int b = 0; b < rate - 2; ++b) {
        const __m256i bit = tcq_lo_bit_at(rate, quad, p, at, b);
        n /= 2;
        for (int j = 0; j < n; ++j) {
            r[j] = tcq_select(r[2*j], r[2*j + 1], bit);
        }
    }
    return (tcq_weights) { r[0], tcq_to_bit_7(p->signs[at.half], at.bit + 1) };
}

#endif

#define TCQ_HAS_DOT_ROWS

TCQ_INLINE __m256i tcq_first_lane(int v) {
    return _mm256_zextsi128_si256(_mm_cvtsi32_si128(v));
}

// where the sum of a block starts: what is outside the vectors, bias where levels have it and slots. From TCQ_SIGNED_RATE
// on the sum is of the opposite sign
TCQ_INLINE int tcq_outside(int rate, int bias, int of_slots) {
    return rate < TCQ_SIGNED_RATE ? bias + of_slots : -of_slots;
}

TCQ_INLINE __m256 tcq_add_block(int rate, __m256 sum, __m256i acc, __m256 d) {
    return rate < TCQ_SIGNED_RATE ? _mm256_fmadd_ps (d, _mm256_cvtepi32_ps(acc), sum) :
                                    _mm256_fnmadd_ps(d, _mm256_cvtepi32_ps(acc), sum);
}

// acc and the levels times q, or less them (tcq_outside)
TCQ_INLINE __m256i tcq_dot_levels(int rate, const uint8_t * x, const int8_t * q, __m256i acc) {
    for (int j = 0; j < 32*rate + 4; j += 64) {
        _mm_prefetch((const char *) x + TCQ_PREFETCH + j, _MM_HINT_T0);
    }
    const tcq_planes planes = tcq_load_planes(rate, x);
#pragma GCC unroll 4
    for (int k = 0; k < 8; k += 2) {
        const __m256i q0 = tcq_load(q + 32*k), q1 = tcq_load(q + 32*k + 32);
        if (rate < TCQ_SIGNED_RATE) {
            acc = tcq_mul_add(acc, tcq_levels(rate, false, &planes, k),     q0);
            acc = tcq_mul_add(acc, tcq_levels(rate, false, &planes, k + 1), q1);
        } else {
            const tcq_weights w[2] = { tcq_get_weights(rate, false, &planes, k), tcq_get_weights(rate, false, &planes, k + 1) };
            acc = tcq_mul_sub_2(acc, w, q0, q1);
        }
    }
    return acc;
}

TCQ_INLINE void tcq_vec_dot(int rate, int n, float * s, const uint8_t * x, const block_q8_K * y) {
    assert(n % QK_TCQ == 0);

    __m256 sum = _mm256_setzero_ps();

    for (int i = 0; i < n/QK_TCQ; ++i, x += 32*rate + 4, ++y) {
        const uint32_t side     = tcq_load_side(x + 32*rate);
        const int      of_slots = tcq_dot_slots(TCQ_BY_RATE(rate, _slots), side, y->qs);

        __m256i acc = tcq_first_lane(tcq_outside(rate, 0, of_slots));
        if (rate < TCQ_SIGNED_RATE) {
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_set1_epi16(-TCQ_BIAS), tcq_load(y->bsums)));
        }
        acc = tcq_dot_levels(rate, x, y->qs, acc);
        sum = tcq_add_block(rate, sum, acc, _mm256_mul_ps(_mm256_broadcast_ss(&y->d), _mm256_set1_ps(tcq_side_scale(side))));
    }
    *s = tcq_hsum(sum);
}

// one after the other: 16 registers hold the tables of one row
TCQ_INLINE void tcq_dot_rows(int rate, const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {
    for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
        const uint8_t * xb = x[r];

        __m256 sum = _mm256_setzero_ps();

        for (int b = 0; b < y->n_blocks; ++b, xb += 32*rate + 4) {
            const int8_t * q        = y->q + QK_TCQ*b;
            const uint32_t side     = tcq_load_side(xb + 32*rate);
            const int      of_slots = tcq_dot_slots(TCQ_BY_RATE(rate, _slots), side, q);
            const __m256i  acc      = tcq_dot_levels(rate, xb, q, tcq_first_lane(tcq_outside(rate, y->bias[b], of_slots)));
            sum = tcq_add_block(rate, sum, acc, _mm256_mul_ps(_mm256_broadcast_ss(&y->d[b]), _mm256_set1_ps(tcq_side_scale(side))));
        }
        s[r] = tcq_hsum(sum);
    }
}

TCQ_INLINE void tcq_unpack(int rate, const uint8_t * x, uint8_t * levels) {
    const tcq_planes planes = tcq_load_planes(rate, x);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
        const __m256i v = rate < TCQ_SIGNED_RATE ? tcq_levels(rate, false, &planes, k) :
                                                   tcq_biased(tcq_get_weights(rate, false, &planes, k));
        _mm256_storeu_si256((__m256i *) (levels + 32*k), v);
    }
}

//
// blocks of 64: w[0] is weights 0..15 | 32..47, w[1] is weights 16..31 | 48..63, so that each 128-bit lane belongs
// to one q8_0 block
//

#if TCQ_GFNI

// matrices of k = 0, 1, 4, 5 or 2, 3, 6, 7
TCQ_INLINE __m256i tcq_affine_64(__m256i v, const uint64_t * m, int i) {
    return _mm256_gf2p8affine_epi64_epi8(v, _mm256_setr_epi64x(m[2*i], m[2*i + 1], m[2*i + 4], m[2*i + 5]), 0);
}

TCQ_INLINE void tcq_levels_64(int rate, const uint8_t * x, __m256i w[2]) {
    int64_t path, lo = 0;
    memcpy(&path, x, 8);
    memcpy(&lo, x + 8, 8);
    const __m256i cur  = _mm256_set1_epi64x(path);
    const __m256i prev = _mm256_set1_epi64x((uint64_t) path << 8 | (uint64_t) path >> 56);

    const __m256i lo_0 = rate == 2 || rate == 4 ? _mm256_set1_epi64x(lo) : tcq_load_twice(x + 8);
    const __m256i lo_1 = tcq_load_twice(x + (rate == 4 ? 16 : 24));

    for (int i = 0; i < 2; ++i) {
        __m256i index = _mm256_xor_si256(tcq_affine_64(cur, tcq_64_affine_cur, i), tcq_affine_64(prev, tcq_64_affine_prev, i));
        if (rate >= 2) {
            index = _mm256_xor_si256(index, tcq_affine_64(lo_0, tcq_affine_lo_64(rate), i));
        }
        if (rate >= 4) {
            index = _mm256_xor_si256(index, tcq_affine_64(lo_1, tcq_affine_lo_64(rate) + 8, i));
        }
        w[i] = rate == 1 ? tcq_lookup(tcq1_lut, index) : tcq_biased(tcq_weights_by_index(rate, index));
    }
}

#else

// two bits of every weight to bits `to` and `to` + 1 of v[0] (k = 0, 1 | 4, 5) and v[1] (k = 2, 3 | 6, 7):
// stored in byte 8*(k & 1) + y, from bit {4, 0, 6, 2}[k >> 1] on
TCQ_INLINE void tcq_join_pairs(__m256i v[2], const uint8_t * x, int to) {
    const __m256i pairs = tcq_load_twice(x);
    const __m256i mask  = _mm256_set1_epi8(3 << to);
    const __m256i low   = _mm256_srlv_epi64(pairs, _mm256_setr_epi64x(1, 1, 3, 3)); // at bit 3
    const __m256i high  = _mm256_sllv_epi64(pairs, _mm256_setr_epi64x(to, to, to - 2, to - 2));
    v[0] = _mm256_or_si256(v[0], _mm256_and_si256(_mm256_slli_epi64(low, to - 3), mask));
    v[1] = _mm256_or_si256(v[1], _mm256_and_si256(high, mask));
}

// the lo bit stored alone, of k at bit 4*(k & 1) + 3 - (k >> 1), to bit 4
TCQ_INLINE void tcq_join_single(__m256i v[2], const uint8_t * x) {
    int64_t lo;
    memcpy(&lo, x, 8);
    const __m256i single = _mm256_set1_epi64x(lo);
    const __m256i mask   = _mm256_set1_epi8(0x10);
    for (int i = 0; i < 2; ++i) {
        const __m256i up   = _mm256_sllv_epi64(single, _mm256_setr_epi64x(1 + i, 64, 3 + i, 64));
        const __m256i down = _mm256_srlv_epi64(single, _mm256_setr_epi64x(64, 3 - i, 64, 1 - i));
        v[i] = _mm256_or_si256(v[i], _mm256_and_si256(_mm256_or_si256(up, down), mask));
    }
}

// an index mirrored, with its sign at bit 7
TCQ_INLINE __m256i tcq_mirror(int rate, __m256i index) {
    const __m256i at_bit_7 = _mm256_slli_epi16(index, 5 - rate);
    const __m256i sign     = _mm256_cmpgt_epi8(_mm256_setzero_si256(), at_bit_7);
    const __m256i others   = _mm256_and_si256(_mm256_xor_si256(index, sign), _mm256_set1_epi8((4 << rate) - 1));
    return _mm256_or_si256(others, _mm256_and_si256(sign, _mm256_set1_epi8((char) 0x80)));
}

TCQ_INLINE void tcq_levels_64(int rate, const uint8_t * x, __m256i w[2]) {
    int64_t path;
    memcpy(&path, x, 8);

    // qword i rotated right by 2i: one set of nibble tables then serves sub-blocks 2i and 2i + 1
    const __m256i p    = _mm256_set1_epi64x(path);
    const __m256i cur  = _mm256_or_si256(_mm256_srlv_epi64(p, _mm256_setr_epi64x(0, 2, 4, 6)),
                                         _mm256_sllv_epi64(p, _mm256_setr_epi64x(64, 62, 60, 58)));
    const __m256i prev = tcq_previous_bytes_quad(cur);

    const __m256i z = tcq_lookup_3(tcq_nibble_pair, tcq_low_nibbles(prev), tcq_high_nibbles(prev), tcq_low_nibbles(cur));
    const __m256i even = tcq_high_nibbles(z), odd = tcq_low_nibbles(z);
    w[0] = _mm256_unpacklo_epi64(even, odd);
    w[1] = _mm256_unpackhi_epi64(even, odd);
    if (rate == 2 || rate == 4) {
        tcq_join_single(w, x + 8);
    }
    if (rate >= 3) {
        tcq_join_pairs(w, x + (rate == 4 ? 16 : 8), rate == 4 ? 5 : 4);
    }
    if (rate == 5) {
        tcq_join_pairs(w, x + 24, 6);
    }
    for (int i = 0; i < 2; ++i) {
        w[i] = rate == 1 ? tcq_lookup(tcq1_lut, w[i]) : tcq_biased(tcq_weights_by_index(rate, tcq_mirror(rate, w[i])));
    }
}

#endif

// 4 sums of block y[0] | 4 of y[1]
TCQ_INLINE __m256i tcq_dot_64(const __m256i w[2], const block_q8_0 * y) {
    const __m256i q0 = tcq_load_halves(y[0].qs,      y[1].qs);
    const __m256i q1 = tcq_load_halves(y[0].qs + 16, y[1].qs + 16);
    const __m256i b  = _mm256_set1_epi8(TCQ_BIAS);
#if TCQ_VNNI
    const __m256i zero = _mm256_setzero_si256();
    return _mm256_sub_epi32(tcq_mul_add(tcq_mul_add(zero, w[0], q0), w[1], q1), tcq_mul_add(tcq_mul_add(zero, b, q0), b, q1));
#else
    // wrap-around cancels: without the bias, a sum of four products is at most 4*63*128
    const __m256i dot  = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], q0), _mm256_maddubs_epi16(w[1], q1));
    const __m256i bias = _mm256_add_epi16(_mm256_maddubs_epi16(b,    q0), _mm256_maddubs_epi16(b,    q1));
    return _mm256_madd_epi16(_mm256_sub_epi16(dot, bias), _mm256_set1_epi16(1));
#endif
}

TCQ_INLINE void tcq_vec_dot_64(int rate, int n, float * s, const uint8_t * x, const block_q8_0 * y) {
    assert(n % QK_TCQ_64 == 0);

    const int16_t * slots = TCQ_BY_RATE(rate, _64_slots);

    __m256 sum       = _mm256_setzero_ps();
    float  sum_slots = 0.0f;

    for (int i = 0; i < n/QK_TCQ_64; ++i, x += 8*rate + 2, y += 2) {
        const uint8_t slot = x[8*rate];
        const int     j    = slot & 0x3f;
        const int     h    = j/QK8_0;

        _mm_prefetch((const char *) x + TCQ_PREFETCH, _MM_HINT_T0);

        // the scale of the first half 4 times, then that of the second
        const __m128i dy = _mm_unpacklo_epi64(_mm_set1_epi16(y[0].d), _mm_set1_epi16(y[1].d));
        const __m256  d  = _mm256_mul_ps(_mm256_cvtph_ps(dy), _mm256_set1_ps(tcq_scale_64[x[8*rate + 1]]));

        __m256i w[2];
        tcq_levels_64(rate, x, w);

        float d_half[8];
        _mm256_storeu_ps(d_half, d);
        sum        = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(tcq_dot_64(w, y)), sum);
        sum_slots += d_half[4*h]*(slots[slot >> 6]*y[h].qs[j % QK8_0]);
    }
    *s = tcq_hsum(sum) + sum_slots;
}

TCQ_INLINE __m256i tcq_broadcast_8(const void * p) {
    int64_t v;
    memcpy(&v, p, 8);
    return _mm256_set1_epi64x(v);
}

// a lane of 64 bits is a row
TCQ_INLINE void tcq_dot_rows_64(int rate, const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {
    const int       size  = 8*rate + 2;
    const int16_t * slots = TCQ_BY_RATE(rate, _64_slots);

    __m256 sum = _mm256_setzero_ps();

    for (int b = 0; b < y->n_blocks; ++b) {
        const int8_t  * q = y->q + QK_TCQ_64*b;
        const uint8_t * xb[TCQ_DOT_ROWS];
        int             outside[TCQ_DOT_ROWS];
        __m256          d[TCQ_DOT_ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
            xb[r] = x[r] + size*b;
            const uint8_t slot = xb[r][8*rate];
            outside[r] = tcq_outside(rate, y->bias[b], slots[slot >> 6]*q[slot & 0x3f]);
            d[r]       = _mm256_broadcast_ss(&tcq_scale_64[xb[r][8*rate + 1]]);
            _mm_prefetch((const char *) xb[r] + y->ahead, _MM_HINT_T1); // long rows would fill L1
        }
        const tcq_planes planes = tcq_load_planes_quad(rate, xb);
        __m256i acc = _mm256_cvtepu32_epi64(_mm_setr_epi32(outside[0], outside[1], outside[2], outside[3]));
#pragma GCC unroll 4
        for (int k = 0; k < 8; k += 2) {
            const __m256i q0 = tcq_broadcast_8(q + 8*k), q1 = tcq_broadcast_8(q + 8*k + 8);
            if (rate < TCQ_SIGNED_RATE) {
                acc = tcq_mul_add(acc, tcq_levels(rate, true, &planes, k),     q0);
                acc = tcq_mul_add(acc, tcq_levels(rate, true, &planes, k + 1), q1);
            } else {
                const tcq_weights w[2] = { tcq_get_weights(rate, true, &planes, k), tcq_get_weights(rate, true, &planes, k + 1) };
                acc = tcq_mul_sub_2(acc, w, q0, q1);
            }
        }
        const __m256 dw = _mm256_blend_ps(_mm256_blend_ps(d[0], d[1], 0x0c), _mm256_blend_ps(d[2], d[3], 0xc0), 0xf0);
        sum = tcq_add_block(rate, sum, acc, _mm256_mul_ps(dw, _mm256_broadcast_ss(&y->d[b])));
    }
    sum = _mm256_add_ps(sum, _mm256_movehdup_ps(sum));
    _mm_storeu_ps(s, _mm256_castps256_ps128(_mm256_permutevar8x32_ps(sum, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6))));
}

TCQ_INLINE void tcq_unpack_64(int rate, const uint8_t * x, uint8_t * levels) {
    __m256i w[2];
    tcq_levels_64(rate, x, w);
    _mm256_storeu_si256((__m256i *) levels,        _mm256_permute2x128_si256(w[0], w[1], 0x20));
    _mm256_storeu_si256((__m256i *) (levels + 32), _mm256_permute2x128_si256(w[0], w[1], 0x31));
}

//
// products: a vector is one row with 8 columns
//

TCQ_INLINE __m256i tcq_add_slot(__m256i acc, const tcq_panel_block * panel, int half, const tcq_slots * slots, int i) {
    const __m256i q = tcq_load(panel->q + 4*(TCQ_PANEL*slots->group[i] + 8*half));
    // the slot's byte of every column as int32; its high half meets the zero high half of the value
    const __m256i v = _mm256_srai_epi32(_mm256_sllv_epi32(q, _mm256_set1_epi32(slots->shift[i])), 24);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(v, _mm256_set1_epi32(slots->value[i])));
}

static void tcq_multiply(const tcq_tile * tile, const void * panel, float c[TCQ_TILE][TCQ_PANEL]) {
    enum { ROWS = 4 }; // at a time: two accumulators each

    const int    n       = tile->block_size;
    const int    n_slots = tcq_n_slots(n);
    const char * y       = (const char *) panel;

    memset(c, 0, sizeof(float)*TCQ_TILE*TCQ_PANEL);

    for (int b = 0; b < tile->n_blocks; ++b, y += sizeof(tcq_panel_block) + n*TCQ_PANEL) {
        const tcq_panel_block * yb = (const tcq_panel_block *) y;

        for (int r0 = 0; r0 < TCQ_TILE; r0 += ROWS) {
            const uint8_t   * w     = tile->levels + (size_t) (b*TCQ_TILE + r0)*n;
            const tcq_slots * slots = tile->slots + b*TCQ_TILE + r0;

            __m256i acc[ROWS][2];
#pragma GCC unroll 8
            for (int i = 0; i < 2*ROWS; ++i) {
                acc[i/2][i % 2] = tcq_load(yb->bias + 8*(i % 2));
            }
            for (int g = 0; g < n; g += 4) {
                const __m256i q0 = tcq_load(yb->q + TCQ_PANEL*g);
                const __m256i q1 = tcq_load(yb->q + TCQ_PANEL*g + 32);
#pragma GCC unroll 4
                for (int r = 0; r < ROWS; ++r) {
                    int32_t levels;
                    memcpy(&levels, w + r*n + g, 4);
                    acc[r][0] = tcq_mul_add(acc[r][0], _mm256_set1_epi32(levels), q0);
                    acc[r][1] = tcq_mul_add(acc[r][1], _mm256_set1_epi32(levels), q1);
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < 2*ROWS; ++i) {
                const int r = i/2, half = i % 2;
                for (int j = 0; j < n_slots; ++j) {
                    acc[r][half] = tcq_add_slot(acc[r][half], yb, half, &slots[r], j);
                }
                float      * out = c[r0 + r] + 8*half;
                const __m256 dw  = _mm256_mul_ps(_mm256_loadu_ps(yb->d + 8*half), _mm256_set1_ps(tile->d[b*TCQ_TILE + r0 + r]));
                _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][half]), dw, _mm256_loadu_ps(out)));
            }
        }
    }
}

#if !TCQ_GFNI && !TCQ_VNNI
#include "tcq-groups-256.h"
#endif

#include "tcq-define-kernels.h"
