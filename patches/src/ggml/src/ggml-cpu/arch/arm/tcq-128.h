// TCQ kernels for Arm. Included by tcq-neon.c, tcq-dotprod.c and tcq-i8mm.c, which set TCQ_ISA (the name of the kernels),
// TCQ_DOTPROD and TCQ_I8MM (0 or 1), and the compiler's target.
//
// Levels are signed bytes here, looked up by the whole index in tables of 16 to 128 entries; at rate 5 those with its top
// bit set mirror the others.
// `rate`, `k` and `half` are always constants after inlining.

#include "ggml-tcq-tables.h"
#include "tcq-side.h"
#include "tcq-simd-tables.h"

#include <arm_neon.h>
#include <assert.h>
#include <string.h>

// bits of every byte up (by > 0) or down
TCQ_INLINE uint8x16_t tcq_shift(uint8x16_t v, int by) {
    return vshlq_u8(v, vdupq_n_s8(by));
}

// v with the bits of mask taken from `from`
TCQ_INLINE uint8x16_t tcq_join(uint8x16_t v, uint8x16_t from, int mask) {
    return vbslq_u8(vdupq_n_u8(mask), from, v);
}

// the high nibble, or the low one
TCQ_INLINE uint8x16_t tcq_nibble(uint8x16_t v, int high) {
    return high ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(0xf));
}

TCQ_INLINE uint8x16_t tcq_lookup_3(const uint8_t * tables, uint8x16_t i0, uint8x16_t i1, uint8x16_t i2) {
    return veorq_u8(veorq_u8(vqtbl1q_u8(vld1q_u8(tables), i0), vqtbl1q_u8(vld1q_u8(tables + 16), i1)),
                    vqtbl1q_u8(vld1q_u8(tables + 32), i2));
}

TCQ_INLINE uint8x16x4_t tcq_load_64(const uint8_t * p) {
    const uint8x16x4_t r = { { vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48) } };
    return r;
}

TCQ_INLINE int8x16_t tcq_lookup_128(const uint8_t * table, uint8x16_t i) {
    const uint8x16_t r = vqtbl4q_u8(tcq_load_64(table), i);
    return vreinterpretq_s8_u8(vsubq_u8(vqtbx4q_u8(r, tcq_load_64(table + 64), vsubq_u8(i, vdupq_n_u8(64))), vdupq_n_u8(TCQ_BIAS)));
}

TCQ_INLINE int8x16_t tcq_levels_by_index(int rate, uint8x16_t index) {
    uint8x16_t r;
    if (rate == 1) {
        r = vqtbl1q_u8(vld1q_u8(tcq1_lut), index);
    } else if (rate == 2) {
        const uint8x16x2_t lut = { { vld1q_u8(tcq2_lut), vld1q_u8(tcq2_lut + 16) } };
        r = vqtbl2q_u8(lut, index);
    } else if (rate == 3) {
        r = vqtbl4q_u8(tcq_load_64(tcq3_lut), index);
    } else if (rate == 4) {
        return tcq_lookup_128(tcq4_lut, index);
    } else {
        const int8x16_t mirrored = vshrq_n_s8(vreinterpretq_s8_u8(index), 7); // 0 or -1
        const int8x16_t level    = tcq_lookup_128(tcq5_lut, veorq_u8(index, vreinterpretq_u8_s8(mirrored)));
        return vsubq_s8(veorq_s8(level, mirrored), mirrored);
    }
    return vreinterpretq_s8_u8(vsubq_u8(r, vdupq_n_u8(TCQ_BIAS)));
}

TCQ_INLINE int32x4_t tcq_first_lane(int32_t v) {
    return vsetq_lane_s32(v, vdupq_n_s32(0), 0);
}

TCQ_INLINE int32x4_t tcq_mul_add(int32x4_t acc, int8x16_t w, int8x16_t q) {
#if TCQ_DOTPROD
    return vdotq_s32(acc, w, q);
#else
    // two products of at most 63*128
    return vpadalq_s16(acc, vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(q)), w, q));
#endif
}

//
// blocks of 256: path bytes 16*half..16*half + 15, of every sub-block k the weights 32*k + 16*half..
//

// pair[i]: parities of sub-block 2i + 1 | those of 2i << 4
typedef struct {
    uint8x16_t pair[4], lo[4];
} tcq_planes;

TCQ_INLINE tcq_planes tcq_load_planes(int rate, const uint8_t * x, int half) {
    const uint8x16_t cur  = vld1q_u8(x + 16*half);
    const uint8x16_t prev = vextq_u8(vld1q_u8(x + 16*(1 - half)), cur, 15);
    const uint8x16_t pl = tcq_nibble(prev, 0), ph = tcq_nibble(prev, 1);
    const uint8x16_t cl = tcq_nibble(cur,  0), ch = tcq_nibble(cur,  1);

    tcq_planes p;
    p.pair[0] = tcq_lookup_3(tcq_nibble_pair,      pl, ph, cl);
    p.pair[1] = tcq_lookup_3(tcq_nibble_pair + 48, pl, ph, cl);
    p.pair[2] = tcq_lookup_3(tcq_nibble_pair,      ph, cl, ch);
    p.pair[3] = tcq_lookup_3(tcq_nibble_pair + 48, ph, cl, ch);
    for (int i = 0; i < rate - 1; ++i) {
        p.lo[i] = vld1q_u8(x + 32 + 32*i + 16*half);
    }
    return p;
}

TCQ_INLINE int8x16_t tcq_levels(int rate, const tcq_planes * p, int k) {
    const int  field = 2*((k & 3) ^ 1); // of two lo bits in a byte
    uint8x16_t index = tcq_nibble(p->pair[k >> 1], !(k & 1));

    if (rate == 2) {
        index = tcq_join(index, tcq_shift(p->lo[0], (k >> 1) + 1 - 4*(k & 1)), 0x10);
    }
    if (rate >= 3) {
        index = tcq_join(index, tcq_shift(p->lo[k >> 2], 4 - field), 0x30);
    }
    if (rate == 4) {
        index = tcq_join(index, tcq_shift(p->lo[2], 6 - k), 0x40);
    }
    if (rate == 5) {
        index = tcq_join(index, tcq_shift(p->lo[2 + (k >> 2)], 6 - field), 0xc0);
    }
    return tcq_levels_by_index(rate, index);
}

TCQ_INLINE void tcq_vec_dot(int rate, int n, float * s, const uint8_t * x, const block_q8_K * y) {
    assert(n % QK_TCQ == 0);

    float32x4_t sum = vdupq_n_f32(0.0f);

    for (int i = 0; i < n/QK_TCQ; ++i, x += 32*rate + 4, ++y) {
        const uint32_t side = tcq_load_side(x + 32*rate);
        const int8_t * q    = y->qs;

        int32x4_t acc[2] = { tcq_first_lane(tcq_dot_slots(TCQ_BY_RATE(rate, _slots), side, q)), vdupq_n_s32(0) };
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const tcq_planes planes = tcq_load_planes(rate, x, half);
#pragma GCC unroll 8
            for (int k = 0; k < 8; ++k) {
                acc[half] = tcq_mul_add(acc[half], tcq_levels(rate, &planes, k), vld1q_s8(q + 32*k + 16*half));
            }
        }
        sum = vfmaq_n_f32(sum, vcvtq_f32_s32(vaddq_s32(acc[0], acc[1])), y->d*tcq_side_scale(side));
    }
    *s = vaddvq_f32(sum);
}

TCQ_INLINE void tcq_unpack(int rate, const uint8_t * x, uint8_t * levels) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        const tcq_planes planes = tcq_load_planes(rate, x, half);
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) {
            vst1q_s8((int8_t *) levels + 32*k + 16*half, tcq_levels(rate, &planes, k));
        }
    }
}

//
// blocks of 64: w[i] is sub-blocks 2i and 2i + 1, the weights from 16*i on
//

TCQ_INLINE void tcq_levels_64(int rate, const uint8_t * x, int8x16_t w[4]) {
    static const uint8_t previous[16] = { 7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14 };

    uint64_t path;
    memcpy(&path, x, 8);

    uint8x16_t index[4];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        // rotated right by 4i and 4i + 2: one set of nibble tables then serves all sub-blocks (the odd one at the lower nibble)
        const uint64_t   r[2] = { i == 0 ? path : path >> 4 | path << 60, path >> (4*i + 2) | path << (62 - 4*i) };
        const uint8x16_t cur  = vreinterpretq_u8_u64(vld1q_u64(r));
        const uint8x16_t prev = vqtbl1q_u8(cur, vld1q_u8(previous));

        const uint8x16_t z = tcq_lookup_3(tcq_nibble_pair, tcq_nibble(prev, 0), tcq_nibble(prev, 1), tcq_nibble(cur, 0));
        const uint64x2_t even = vreinterpretq_u64_u8(tcq_nibble(z, 1)), odd = vreinterpretq_u64_u8(tcq_nibble(z, 0));
        index[2*i + 0] = vreinterpretq_u8_u64(vzip1q_u64(even, odd));
        index[2*i + 1] = vreinterpretq_u8_u64(vzip2q_u64(even, odd));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        static const int fields[4] = { 4, 0, 6, 2 };
        if (rate == 2 || rate == 4) { // of an even sub-block at bit 3 - i, of the odd one at bit 7 - i
            const uint8x16_t lo = vcombine_u8(vld1_u8(x + 8), vld1_u8(x + 8));
            index[i] = tcq_join(index[i], vshlq_u8(lo, vcombine_s8(vdup_n_s8(i + 1), vdup_n_s8(i - 3))), 0x10);
        }
        if (rate >= 3) {
            const int to = rate == 4 ? 5 : 4;
            index[i] = tcq_join(index[i], tcq_shift(vld1q_u8(x + (rate == 4 ? 16 : 8)), to - fields[i]), 3 << to);
        }
        if (rate == 5) {
            index[i] = tcq_join(index[i], tcq_shift(vld1q_u8(x + 24), 6 - fields[i]), 0xc0);
        }
        w[i] = tcq_levels_by_index(rate, index[i]);
    }
}

TCQ_INLINE void tcq_vec_dot_64(int rate, int n, float * s, const uint8_t * x, const block_q8_0 * y) {
    assert(n % QK_TCQ_64 == 0);

    const int16_t * slots = TCQ_BY_RATE(rate, _64_slots);

    float32x4_t sum       = vdupq_n_f32(0.0f);
    float       sum_slots = 0.0f;

    for (int i = 0; i < n/QK_TCQ_64; ++i, x += 8*rate + 2, y += 2) {
        const uint8_t slot = x[8*rate];
        const int     j    = slot & 0x3f;
        const int     h    = j/QK8_0;
        const float   d    = tcq_scale_64[x[8*rate + 1]];

        int8x16_t w[4];
        tcq_levels_64(rate, x, w);

        float dy[2];
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __fp16 d_half;
            memcpy(&d_half, &y[half].d, sizeof(d_half));
            dy[half] = d*(float) d_half;

            int32x4_t acc = tcq_mul_add(vdupq_n_s32(0), w[2*half], vld1q_s8(y[half].qs));
            acc = tcq_mul_add(acc, w[2*half + 1], vld1q_s8(y[half].qs + 16));
            sum = vfmaq_n_f32(sum, vcvtq_f32_s32(acc), dy[half]);
        }
        sum_slots += dy[h]*(slots[slot >> 6]*y[h].qs[j % QK8_0]);
    }
    *s = vaddvq_f32(sum) + sum_slots;
}

TCQ_INLINE void tcq_unpack_64(int rate, const uint8_t * x, uint8_t * levels) {
    int8x16_t w[4];
    tcq_levels_64(rate, x, w);
    for (int i = 0; i < 4; ++i) {
        vst1q_s8((int8_t *) levels + 16*i, w[i]);
    }
}

//
// several rows with one column
//

#if TCQ_DOTPROD

#define TCQ_HAS_DOT_ROWS

// one after the other: 32 registers do not hold the planes of two rows
TCQ_INLINE void tcq_dot_rows(int rate, const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {
    const int size = 32*rate + 4;

    for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
        const uint8_t * xb = x[r];

        float32x4_t sum = vdupq_n_f32(0.0f);

        for (int b = 0; b < y->n_blocks; ++b, xb += size) {
            const uint32_t side = tcq_load_side(xb + 32*rate);
            const int8_t * q    = y->q + QK_TCQ*b;

            int32x4_t acc[2] = { tcq_first_lane(tcq_dot_slots(TCQ_BY_RATE(rate, _slots), side, q)), vdupq_n_s32(0) };
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const tcq_planes planes = tcq_load_planes(rate, xb, half);
#pragma GCC unroll 8
                for (int k = 0; k < 8; ++k) {
                    acc[half] = tcq_mul_add(acc[half], tcq_levels(rate, &planes, k), vld1q_s8(q + 32*k + 16*half));
                }
            }
            sum = vfmaq_n_f32(sum, vcvtq_f32_s32(vaddq_s32(acc[0], acc[1])), y->d[b]*tcq_side_scale(side));
        }
        s[r] = vaddvq_f32(sum);
    }
}

TCQ_INLINE void tcq_dot_rows_64(int rate, const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {
    const int       size  = 8*rate + 2;
    const int16_t * slots = TCQ_BY_RATE(rate, _64_slots);

    float32x4_t sum[TCQ_DOT_ROWS] = { vdupq_n_f32(0.0f), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f) };

    for (int b = 0; b < y->n_blocks; ++b) {
        const int8_t * q = y->q + QK_TCQ_64*b;
        int8x16_t      qv[4];
        for (int i = 0; i < 4; ++i) {
            qv[i] = vld1q_s8(q + 16*i);
        }
#pragma GCC unroll 4
        for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
            const uint8_t * xb   = x[r] + size*b;
            const uint8_t   slot = xb[8*rate];

            int8x16_t w[4];
            tcq_levels_64(rate, xb, w);
            int32x4_t acc = tcq_first_lane(slots[slot >> 6]*q[slot & 0x3f]);
            for (int i = 0; i < 4; ++i) {
                acc = tcq_mul_add(acc, w[i], qv[i]);
            }
            sum[r] = vfmaq_n_f32(sum[r], vcvtq_f32_s32(acc), y->d[b]*tcq_scale_64[xb[8*rate + 1]]);
        }
    }
    for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
        s[r] = vaddvq_f32(sum[r]);
    }
}

#endif

//
// products
//

#if TCQ_DOTPROD

enum { TCQ_ROWS = 4 }; // at a time

// c += d*dw*(acc + slots) of rows r0.. with the columns 4*i..4*i + 3
TCQ_INLINE void tcq_finish_block(int32x4_t acc, const tcq_tile * tile, int n_slots, const tcq_panel_block * y, int row, int i, float * c) {
    const tcq_slots * slots = &tile->slots[row];
    for (int j = 0; j < n_slots; ++j) {
        const int32x4_t q = vreinterpretq_s32_s8(vld1q_s8(y->q + 4*(TCQ_PANEL*slots->group[j] + 4*i)));
        // the slot's byte of every column as int32
        const int32x4_t v = vshrq_n_s32(vshlq_s32(q, vdupq_n_s32(slots->shift[j])), 24);
        acc = vmlaq_n_s32(acc, v, (int16_t) slots->value[j]);
    }
    const float32x4_t d = vmulq_n_f32(vld1q_f32(y->d + 4*i), tile->d[row]);
    vst1q_f32(c + 4*i, vfmaq_f32(vld1q_f32(c + 4*i), vcvtq_f32_s32(acc), d));
}

static void tcq_multiply(const tcq_tile * tile, const void * panel, float c[TCQ_TILE][TCQ_PANEL]) {
    const int    n       = tile->block_size;
    const int    n_slots = tcq_n_slots(n);
    const char * p       = (const char *) panel;

    memset(c, 0, sizeof(float)*TCQ_TILE*TCQ_PANEL);

    for (int b = 0; b < tile->n_blocks; ++b, p += sizeof(tcq_panel_block) + n*TCQ_PANEL) {
        const tcq_panel_block * y = (const tcq_panel_block *) p;

        for (int r0 = 0; r0 < TCQ_TILE; r0 += TCQ_ROWS) {
            const int8_t * w = (const int8_t *) tile->levels + (size_t) (b*TCQ_TILE + r0)*n;
            int32x4_t acc[TCQ_ROWS][4];
            memset(acc, 0, sizeof(acc));
#if TCQ_I8MM
            // products of two rows and two columns: [row][column], columns 4i, 4i + 2 in even vectors, 4i + 1, 4i + 3 in odd
            int32x4_t square[TCQ_ROWS/2][8];
            memset(square, 0, sizeof(square));
            for (int g = 0; g < n; g += 8) {
                int8x16_t rows[TCQ_ROWS/2];
                for (int r = 0; r < TCQ_ROWS/2; ++r) {
                    rows[r] = vcombine_s8(vld1_s8(w + 2*r*n + g), vld1_s8(w + (2*r + 1)*n + g));
                }
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) {
                    const int32x4_t q0 = vreinterpretq_s32_s8(vld1q_s8(y->q + TCQ_PANEL*g + 16*i));
                    const int32x4_t q1 = vreinterpretq_s32_s8(vld1q_s8(y->q + TCQ_PANEL*(g + 4) + 16*i));
                    for (int r = 0; r < TCQ_ROWS/2; ++r) {
                        square[r][2*i + 0] = vmmlaq_s32(square[r][2*i + 0], rows[r], vreinterpretq_s8_s32(vtrn1q_s32(q0, q1)));
                        square[r][2*i + 1] = vmmlaq_s32(square[r][2*i + 1], rows[r], vreinterpretq_s8_s32(vtrn2q_s32(q0, q1)));
                    }
                }
            }
            for (int r = 0; r < TCQ_ROWS/2; ++r) {
                for (int i = 0; i < 4; ++i) {
                    acc[2*r + 0][i] = vzip1q_s32(square[r][2*i], square[r][2*i + 1]);
                    acc[2*r + 1][i] = vzip2q_s32(square[r][2*i], square[r][2*i + 1]);
                }
            }
#else
            for (int g = 0; g < n; g += 4) {
                int8x16_t q[4];
                for (int i = 0; i < 4; ++i) {
                    q[i] = vld1q_s8(y->q + TCQ_PANEL*g + 16*i);
                }
#pragma GCC unroll 4
                for (int r = 0; r < TCQ_ROWS; ++r) {
                    int32_t levels;
                    memcpy(&levels, w + r*n + g, 4);
                    for (int i = 0; i < 4; ++i) {
                        acc[r][i] = vdotq_s32(acc[r][i], q[i], vreinterpretq_s8_s32(vdupq_n_s32(levels)));
                    }
                }
            }
#endif
            for (int r = 0; r < TCQ_ROWS; ++r) {
                for (int i = 0; i < 4; ++i) {
                    tcq_finish_block(acc[r][i], tile, n_slots, y, b*TCQ_TILE + r0 + r, i, c[r0 + r]);
                }
            }
        }
    }
}

#else

#define tcq_multiply NULL // no faster than vec_dot

#endif

#include "tcq-define-kernels.h"
