// TCQ vec_dots with AVX-512 (BW, VL, VBMI, VNNI) and GFNI: 64 weights at once.
//
// The index of a level is linear in bits: one affine transform for each byte that it depends on, then one byte permutation.
// Rate 5 has a table of half the levels: the others mirror it. Levels are unsigned bytes, level + 64, for dpbusd.
// `rate` and `i` are always constants after inlining.

#include "tcq-kernels.h"

#if defined(TCQ_X86)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target( \
    "avx2,fma,f16c,gfni,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,gfni,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")
#endif

#include "ggml-tcq-tables.h"
#include "tcq-side.h"
#include "tcq-simd-tables.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#define TCQ_ISA avx512

enum { TCQ_PREFETCH = 1024 };

TCQ_INLINE __m512i tcq_load_32_twice(const void * p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) p));
}

TCQ_INLINE __m512i tcq_load_halves(const void * a, const void * b) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) a)),
                              _mm256_loadu_si256((const __m256i *) b), 1);
}

TCQ_INLINE __m512i tcq_xor3(__m512i a, __m512i b, __m512i c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

// level + 64 -> 64 - level where negate is set
TCQ_INLINE __m512i tcq_negate_where(__mmask64 negate, __m512i level) {
    return _mm512_mask_sub_epi8(level, negate, _mm512_set1_epi8((char) (2*TCQ_BIAS)), level);
}

// permutations look at as many bits as there are entries
TCQ_INLINE __m512i tcq_lookup_128(const uint8_t * table, __m512i index) {
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), index, _mm512_load_si512(table + 64));
}

// rates 1 to 4: level + 64. No bits but the index's have to be zero
TCQ_INLINE __m512i tcq_levels_by_index(int rate, __m512i index) {
    switch (rate) {
        case 1:  return _mm512_permutexvar_epi8(index, _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *) tcq1_lut)));
        case 2:  return _mm512_permutexvar_epi8(index, tcq_load_32_twice(tcq2_lut));
        case 3:  return _mm512_permutexvar_epi8(index, _mm512_load_si512(tcq3_lut));
        default: return tcq_lookup_128(tcq4_lut, index);
    }
}

//
// blocks of 256. Vector i of four has in its halves the two sub-blocks whose stored pairs of bits begin at bit 2i of a
// byte: i ^ 1 and the fourth after it. The parities of the vectors i and i + 2 are nibbles of the bytes that the affine
// transforms make
//

typedef struct {
    __m512i parities[2]; // of the vectors i, i + 2: a nibble each
    __m512i pairs[2];    // rates 3 to 5: bytes with a pair of lo bits for each vector; rate 5 has two
    __m512i single[2];   // rates 2 and 4: a lo bit stored alone, where indices want it; rate 2 has one vector for all
} tcq_planes;

TCQ_INLINE __m512i tcq_affine(__m512i v, const uint64_t * matrices, int i) {
    return _mm512_gf2p8affine_epi64_epi8(v, _mm512_load_si512(matrices + 8*i), 0);
}

TCQ_INLINE tcq_planes tcq_load_planes(int rate, const uint8_t * x) {
    static const uint8_t previous[32] = {
        31,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
    };
    const __m512i cur  = tcq_load_32_twice(x);
    const __m512i prev = _mm512_permutexvar_epi8(tcq_load_32_twice(previous), cur);

    tcq_planes p;
    for (int i = 0; i < 2; ++i) {
        p.parities[i] = _mm512_xor_si512(tcq_affine(cur, tcq_parity_cur, i), tcq_affine(prev, tcq_parity_prev, i));
    }
    if (rate == 2) {
        p.single[0] = tcq_affine(tcq_load_32_twice(x + 32), tcq2_single, 0);
    }
    if (rate >= 3) {
        p.pairs[0] = _mm512_loadu_si512(x + 32);
    }
    if (rate == 4) {
        const __m512i lo = tcq_load_32_twice(x + 96);
        p.single[0] = tcq_affine(lo, tcq4_single, 0);
        p.single[1] = tcq_affine(lo, tcq4_single, 1);
    }
    if (rate == 5) {
        p.pairs[1] = _mm512_loadu_si512(x + 96);
    }
    return p;
}

// bits of `from` in place of those of v
TCQ_INLINE __m512i tcq_insert(int bits, __m512i from, __m512i v) {
    return _mm512_ternarylogic_epi64(v, from, _mm512_set1_epi8((char) bits), 0xd8);
}

// level + 64 of vector i
TCQ_INLINE __m512i tcq_levels(int rate, const tcq_planes * p, int i) {
    const __m512i v = p->parities[i & 1], a = p->pairs[0], b = p->pairs[1];

    if (rate == 2) {
        static const char bit[4] = { 0x10, 0x20, 0x04, 0x08 };
        const __m512i index = tcq_insert(bit[i], p->single[0], v);
        return _mm512_permutexvar_epi8(i < 2 ? index : _mm512_srli_epi16(index, 2), _mm512_load_si512(tcq2_lut_permuted + 64*i));
    }
    const __m512i parities = i < 2 ? v : _mm512_srli_epi16(v, 4);
    if (rate == 1) {
        return tcq_levels_by_index(1, parities);
    }
    if (rate == 3) {
        const __m512i pair = i == 0 ? _mm512_slli_epi16(a, 4) : i == 1 ? _mm512_slli_epi16(a, 2) : i == 2 ? a : _mm512_srli_epi16(a, 2);
        return tcq_levels_by_index(3, tcq_insert(0x30, pair, parities));
    }
    // the lo bits one after the other, then where the index has them
    __m512i lo;
    if (rate == 4) {
        const __m512i single = p->single[i & 1];
        switch (i) {
            case 0:  lo = _mm512_slli_epi16(tcq_insert(0x04, single, a), 4); break;
            case 1:  lo = _mm512_slli_epi16(tcq_insert(0x10, single, a), 2); break;
            case 2:  lo = tcq_insert(0x40, single, a);                       break;
            default: lo = tcq_insert(0x40, single, _mm512_srli_epi16(a, 2)); break;
        }
    } else {
        const __m512i b_up = _mm512_slli_epi16(b, 2);
        switch (i) {
            case 0:  lo = _mm512_slli_epi16(tcq_insert(0x0c, b_up, a), 4); break;
            case 1:  lo = _mm512_slli_epi16(tcq_insert(0x30, b_up, a), 2); break;
            case 2:  lo = tcq_insert(0xc0, b_up, a);                       break;
            default: lo = tcq_insert(0xc0, b, _mm512_srli_epi16(a, 2));    break;
        }
    }
    const __m512i index = tcq_insert(0xf0, lo, parities);
    if (rate == 4) {
        return tcq_levels_by_index(4, index);
    }
    const __mmask64 mirrored = _mm512_movepi8_mask(index);
    return tcq_negate_where(mirrored, tcq_lookup_128(tcq5_lut, _mm512_mask_sub_epi8(index, mirrored, _mm512_set1_epi8(-1), index)));
}

// the 32 weights in the lower half of vector i; those in the upper half are 128 further on
TCQ_INLINE int tcq_first_of_vector(int i) {
    return 32*(i ^ 1);
}

TCQ_INLINE __m512i tcq_load_q(const int8_t * q, int i) {
    return tcq_load_halves(q + tcq_first_of_vector(i), q + tcq_first_of_vector(i) + 128);
}

TCQ_INLINE __m512i tcq_first_lane(int32_t v) {
    return _mm512_zextsi128_si512(_mm_cvtsi32_si128(v));
}

TCQ_INLINE __m512 tcq_add_block(__m512 sum, __m512i acc, float d) {
    return _mm512_fmadd_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(acc), sum);
}

TCQ_INLINE void tcq_vec_dot(int rate, int n, float * s, const uint8_t * x, const block_q8_K * y) {
    assert(n % QK_TCQ == 0);

    const int size = 32*rate + 4;

    __m512 sum = _mm512_setzero_ps();

    for (int b = 0; b < n/QK_TCQ; ++b, x += size, ++y) {
        const uint32_t side = tcq_load_side(x + 32*rate);

        for (int j = 0; j < size; j += 64) {
            _mm_prefetch((const char *) x + TCQ_PREFETCH + j, _MM_HINT_T0);
        }

        const tcq_planes planes = tcq_load_planes(rate, x);
        const __m256i bsums = _mm256_loadu_si256((const __m256i *) y->bsums);
        __m512i acc = _mm512_zextsi256_si512(_mm256_madd_epi16(_mm256_set1_epi16(-TCQ_BIAS), bsums));
        acc = _mm512_add_epi32(acc, tcq_first_lane(tcq_dot_slots(TCQ_BY_RATE(rate, _slots), side, y->qs)));
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            acc = _mm512_dpbusd_epi32(acc, tcq_levels(rate, &planes, i), tcq_load_q(y->qs, i));
        }
        sum = tcq_add_block(sum, acc, y->d*tcq_side_scale(side));
    }
    *s = _mm512_reduce_add_ps(sum);
}

TCQ_INLINE void tcq_unpack(int rate, const uint8_t * x, uint8_t * levels) {
    const tcq_planes planes = tcq_load_planes(rate, x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512i v = tcq_levels(rate, &planes, i);
        uint8_t     * l = levels + tcq_first_of_vector(i);
        _mm256_storeu_si256((__m256i *) l,         _mm512_castsi512_si256(v));
        _mm256_storeu_si256((__m256i *) (l + 128), _mm512_extracti64x4_epi64(v, 1));
    }
}

//
// one block of 64: qword k is sub-block k
//

TCQ_INLINE const uint64_t * tcq_affine_lo_64(int rate) {
    return rate == 2 ? tcq2_64_affine_lo : rate == 3 ? tcq3_64_affine_lo : rate == 4 ? tcq4_64_affine_lo : tcq5_64_affine_mirrored;
}

TCQ_INLINE __m512i tcq_affine_64(__m512i v, const uint64_t * m) {
    return _mm512_gf2p8affine_epi64_epi8(v, _mm512_load_si512(m), 0);
}

TCQ_INLINE __m512i tcq_levels_64(int rate, const uint8_t * x) {
    int64_t path, lo;
    memcpy(&path, x, 8);
    const __m512i cur   = _mm512_set1_epi64(path);
    __m512i       index = tcq_affine_64(cur, tcq_64_affine_cur);
    const __m512i prev  = tcq_affine_64(_mm512_rol_epi64(cur, 8), tcq_64_affine_prev);

    if (rate == 1) {
        index = _mm512_xor_si512(index, prev);
    } else {
        memcpy(&lo, x + 8, 8);
        const __m512i lo_0 = rate == 2 || rate == 4 ? _mm512_set1_epi64(lo) :
                             _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) (x + 8)));
        index = tcq_xor3(index, prev, tcq_affine_64(lo_0, tcq_affine_lo_64(rate)));
    }
    if (rate >= 4) {
        const __m512i lo_1 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) (x + (rate == 4 ? 16 : 24))));
        index = _mm512_xor_si512(index, tcq_affine_64(lo_1, tcq_affine_lo_64(rate) + 8));
    }
    return rate < 5 ? tcq_levels_by_index(rate, index) :
                      tcq_negate_where(_mm512_movepi8_mask(index), tcq_lookup_128(tcq5_lut, index)); // mirrored by the matrices
}

TCQ_INLINE void tcq_vec_dot_64(int rate, int n, float * s, const uint8_t * x, const block_q8_0 * y) {
    assert(n % QK_TCQ_64 == 0);

    const int16_t * slots = TCQ_BY_RATE(rate, _64_slots);

    __m512 sum       = _mm512_setzero_ps();
    float  sum_slots = 0.0f;

    for (int i = 0; i < n/QK_TCQ_64; ++i, x += 8*rate + 2, y += 2) {
        const uint8_t slot = x[8*rate];
        const int     j    = slot & 0x3f;
        const int     h    = j/QK8_0;

        _mm_prefetch((const char *) x + TCQ_PREFETCH, _MM_HINT_T0);

        // the scale of the first half 8 times, then that of the second
        const __m256i dy = _mm256_mask_set1_epi16(_mm256_set1_epi16(y[0].d), 0xff00, y[1].d);
        const __m512  d  = _mm512_mul_ps(_mm512_cvtph_ps(dy), _mm512_set1_ps(tcq_scale_64[x[8*rate + 1]]));

        const __m512i q    = tcq_load_halves(y[0].qs, y[1].qs);
        const __m512i zero = _mm512_setzero_si512();
        const __m512i dot  = _mm512_sub_epi32(_mm512_dpbusd_epi32(zero, tcq_levels_64(rate, x), q),
                                              _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(TCQ_BIAS), q));
        float d_half[16];
        _mm512_storeu_ps(d_half, d);
        sum        = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(dot), sum);
        sum_slots += d_half[8*h]*(slots[slot >> 6]*y[h].qs[j % QK8_0]);
    }
    *s = _mm512_reduce_add_ps(sum) + sum_slots;
}

TCQ_INLINE void tcq_unpack_64(int rate, const uint8_t * x, uint8_t * levels) {
    _mm512_storeu_si512(levels, tcq_levels_64(rate, x));
}

//
// several rows with one column: what belongs to the column is loaded once. An accumulator starts from the bias and the slots
//

#define TCQ_HAS_DOT_ROWS

// rows of blocks of 256 whose instructions are interleaved
enum { TCQ_INTERLEAVED = 2 };

// Of four rows, one after the other in memory, the blocks b: fetches as many bytes of later rows into L2 (long rows would
// fill L1), and what comes soon in these rows from there, as no hardware prefetcher follows several short rows
TCQ_INLINE void tcq_prefetch(const uint8_t * const x[TCQ_DOT_ROWS], int b, int size, ptrdiff_t ahead) {
    for (int j = 0; j < TCQ_DOT_ROWS*size; j += 64) {
        _mm_prefetch((const char *) x[0] + ahead + TCQ_DOT_ROWS*size*b + j, _MM_HINT_T1);
    }
    for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
        for (int j = 0; j < size; j += 64) {
            _mm_prefetch((const char *) x[r] + size*b + 256 + j, _MM_HINT_T0);
        }
    }
}

// [i]: the sum of v[i]
TCQ_INLINE __m128 tcq_reduce_rows(const __m512 v[TCQ_DOT_ROWS]) {
    const __m512  v01 = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const __m512  v23 = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    const __m512  r   = _mm512_add_ps(_mm512_shuffle_ps(v01, v23, 0x44), _mm512_shuffle_ps(v01, v23, 0xee));
    const __m256  r2  = _mm256_add_ps(_mm512_castps512_ps256(r), _mm512_extractf32x8_ps(r, 1));
    return _mm_add_ps(_mm256_castps256_ps128(r2), _mm256_extractf128_ps(r2, 1));
}

TCQ_INLINE void tcq_dot_rows(int rate, const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {
    const int size = 32*rate + 4;

    __m512 sum[TCQ_DOT_ROWS] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };

    for (int b = 0; b < y->n_blocks; ++b) {
        const int8_t * q = y->q + QK_TCQ*b;
        __m512i        qv[4];
        for (int i = 0; i < 4; ++i) {
            qv[i] = tcq_load_q(q, i);
        }
        tcq_prefetch(x, b, size, y->ahead);
#pragma GCC unroll 4
        for (int r0 = 0; r0 < TCQ_DOT_ROWS; r0 += TCQ_INTERLEAVED) {
            tcq_planes planes[TCQ_INTERLEAVED];
            __m512i    acc   [TCQ_INTERLEAVED];
            uint32_t   side  [TCQ_INTERLEAVED];
#pragma GCC unroll 4
            for (int r = 0; r < TCQ_INTERLEAVED; ++r) {
                const uint8_t * xb = x[r0 + r] + size*b;
                planes[r] = tcq_load_planes(rate, xb);
                side[r]   = tcq_load_side(xb + 32*rate);
                acc[r]    = tcq_first_lane(y->bias[b] + tcq_dot_slots(TCQ_BY_RATE(rate, _slots), side[r], q));
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
                for (int r = 0; r < TCQ_INTERLEAVED; ++r) {
                    acc[r] = _mm512_dpbusd_epi32(acc[r], tcq_levels(rate, &planes[r], i), qv[i]);
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < TCQ_INTERLEAVED; ++r) {
                sum[r0 + r] = tcq_add_block(sum[r0 + r], acc[r], y->d[b]*tcq_side_scale(side[r]));
            }
        }
    }
    _mm_storeu_ps(s, tcq_reduce_rows(sum));
}

TCQ_INLINE void tcq_dot_rows_64(int rate, const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {
    const int       size  = 8*rate + 2;
    const int16_t * slots = TCQ_BY_RATE(rate, _64_slots);

    __m512 sum[TCQ_DOT_ROWS] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };

    for (int b = 0; b < y->n_blocks; ++b) {
        const int8_t  * qb = y->q + QK_TCQ_64*b;
        const __m512i   q  = _mm512_loadu_si512(qb);
        tcq_prefetch(x, b, size, y->ahead);
#pragma GCC unroll 4
        for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
            const uint8_t * xb   = x[r] + size*b;
            const uint8_t   slot = xb[8*rate];

            const int32_t outside = y->bias[b] + slots[slot >> 6]*qb[slot & 0x3f];
            const __m512i acc     = _mm512_dpbusd_epi32(tcq_first_lane(outside), tcq_levels_64(rate, xb), q);
            sum[r] = tcq_add_block(sum[r], acc, y->d[b]*tcq_scale_64[xb[8*rate + 1]]);
        }
    }
    _mm_storeu_ps(s, tcq_reduce_rows(sum));
}

//
// products: a vector is one row with 16 columns
//

TCQ_INLINE __m512i tcq_add_slot(__m512i acc, const tcq_panel_block * panel, const tcq_slots * slots, int i) {
    const __m512i q = _mm512_loadu_si512(panel->q + 64*slots->group[i]);
    // the slot's byte of every column as int32; its high half meets the zero high half of the value
    const __m512i v = _mm512_srai_epi32(_mm512_sllv_epi32(q, _mm512_set1_epi32(slots->shift[i])), 24);
    return _mm512_dpwssd_epi32(acc, v, _mm512_set1_epi32(slots->value[i]));
}

static void tcq_multiply(const tcq_tile * tile, const void * panel, float c[TCQ_TILE][TCQ_PANEL]) {
    const int    n       = tile->block_size;
    const int    n_slots = tcq_n_slots(n);
    const char * y       = (const char *) panel;

    memset(c, 0, sizeof(float)*TCQ_TILE*TCQ_PANEL);

    for (int b = 0; b < tile->n_blocks; ++b, y += sizeof(tcq_panel_block) + n*TCQ_PANEL) {
        const tcq_panel_block * yb = (const tcq_panel_block *) y;
        const uint8_t   * w     = tile->levels + (size_t) b*TCQ_TILE*n;
        const tcq_slots * slots = tile->slots + b*TCQ_TILE;

        __m512i acc[TCQ_TILE];
#pragma GCC unroll 16
        for (int r = 0; r < TCQ_TILE; ++r) {
            acc[r] = _mm512_loadu_si512(yb->bias);
        }
        for (int g = 0; g < n; g += 4) {
            const __m512i q = _mm512_loadu_si512(yb->q + TCQ_PANEL*g);
#pragma GCC unroll 16
            for (int r = 0; r < TCQ_TILE; ++r) {
                int32_t levels;
                memcpy(&levels, w + r*n + g, 4);
                acc[r] = _mm512_dpbusd_epi32(acc[r], _mm512_set1_epi32(levels), q);
            }
        }
        const __m512 d = _mm512_loadu_ps(yb->d);
#pragma GCC unroll 16
        for (int r = 0; r < TCQ_TILE; ++r) {
            for (int i = 0; i < n_slots; ++i) {
                acc[r] = tcq_add_slot(acc[r], yb, &slots[r], i);
            }
            const __m512 dw = _mm512_mul_ps(d, _mm512_set1_ps(tile->d[b*TCQ_TILE + r]));
            _mm512_storeu_ps(c[r], _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r]), dw, _mm512_loadu_ps(c[r])));
        }
    }
}

#include "tcq-define-kernels.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
