// TCQ rows repacked in groups: tcq-repack.h has the layout.

#include "tcq-repack.h"

#include <assert.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#if defined(__SSE2__)
void tcq_order_for_group(const int8_t * in, int8_t * out) {
    for (int k = 0; k < 8; ++k) {
        __m128i c[4]; // the lower half: i = 0..7
        for (int j = 0; j < 4; ++j) {
            c[j] = _mm_loadl_epi64((const __m128i *) (in + 32*k + 8*j));
        }
        const __m128i c01 = _mm_unpacklo_epi8(c[0], c[1]), c23 = _mm_unpacklo_epi8(c[2], c[3]);
        int32_t words[8];
        _mm_storeu_si128((__m128i *) (words + 0), _mm_unpacklo_epi16(c01, c23));
        _mm_storeu_si128((__m128i *) (words + 4), _mm_unpackhi_epi16(c01, c23));
        for (int i = 0; i < 8; ++i) {
            memcpy(out + 32*i + 4*k, words + i, 4);
        }
    }
}
#else
void tcq_order_for_group(const int8_t * in, int8_t * out) {
    for (int j = 0; j < QK_TCQ; ++j) {
        out[tcq_group_position(j)] = in[j];
    }
}
#endif

enum { MAX_PLANES = TCQ_N_RATES - 1 };

// What the lo bits of a path byte's weights are repacked to is linear in them, so tables by the bytes of the planes do. In
// words, byte p is vector 1 + p's.
typedef struct {
    uint32_t by_byte[MAX_PLANES][256];
    uint32_t constant;
} tcq_repack_map;

// the bits of the word that lo bit b of sub-block k changes
static uint32_t tcq_repacked_bits(int rate, int k, int b) {
    const int n = rate - 1;
    if (rate == 5) {
        return 1u << (8*(k/2) + 4*(k & 1) + b);
    }
    const int place = (k & 1 ? 7 : 3) - k/2;
    if (b < n - 1) {
        return 1u << (8*(1 + b) + place);
    }
    uint32_t bits = 0; // the last lo bit is the sign, by which the others are mirrored
    for (int p = 0; p < n; ++p) {
        bits |= 1u << (8*p + place);
    }
    return bits;
}

static void tcq_make_map(const tcq_format * f, tcq_repack_map * map) {
    memset(map, 0, sizeof(*map));
    map->constant = f->rate < 5 ? 0xff : 0; // a sign is set where the last lo bit is clear

    for (int k = 0; k < 8; ++k) {
        for (int b = 0; b < f->rate - 1; ++b) {
            const int      position = f->lo_position[32*k*(f->rate - 1) + b]; // of the sub-block's first weight
            const uint32_t bits     = tcq_repacked_bits(f->rate, k, b);
            for (int byte = 0; byte < 256; ++byte) {
                if (byte >> position % 8 & 1) {
                    map->by_byte[position/256][byte] ^= bits;
                }
            }
        }
    }
}

static void tcq_repack_side(const tcq_format * f, const uint8_t * x, int row, tcq_group_side * side) {
    const uint32_t slots = tcq_block_slots(f, x);

    side->d[row] = tcq_block_scale(f, x);
    for (int s = 0; s < 3; ++s) {
        side->slots[row][s] = (uint8_t) tcq_group_position(tcq_slot_position(QK_TCQ, slots, s));
    }
    side->slots[row][3] = (uint8_t) (tcq_slot_values(QK_TCQ, slots)/4);
}

static void tcq_repack_block(const tcq_format * f, const tcq_repack_map * map, const uint8_t * x, int row, uint8_t * out) {
    for (int y = 0; y < 32; ++y) {
        uint8_t * to   = out + (y & 7)*32*f->rate + 4*row + (y >> 3);
        uint32_t  word = map->constant;
        for (int p = 0; p < f->rate - 1; ++p) {
            word ^= map->by_byte[p][x[32 + 32*p + y]];
        }
        to[0] = x[y];
        for (int p = 0; p < f->rate - 1; ++p) {
            to[32*(p + 1)] = (uint8_t) (word >> 8*p);
        }
    }
}

void tcq_repack(const tcq_format * f, int64_t n_rows, int64_t n_blocks, const uint8_t * x, uint8_t * out) {
    assert(f->block_size == QK_TCQ && n_rows % TCQ_GROUP == 0);

    tcq_repack_map map;
    tcq_make_map(f, &map);

    for (int64_t g = 0; g < n_rows/TCQ_GROUP; ++g) {
        for (int64_t b = 0; b < n_blocks; ++b, out += tcq_group_block_size(f->rate)) {
            tcq_group_side side;
            for (int r = 0; r < TCQ_GROUP; ++r) {
                const uint8_t * block = x + ((g*TCQ_GROUP + r)*n_blocks + b)*f->type_size;
                tcq_repack_block(f, &map, block, r, out);
                tcq_repack_side(f, block, r, &side);
            }
            memcpy(out + 8*32*f->rate, &side, sizeof(side));
        }
    }
}
