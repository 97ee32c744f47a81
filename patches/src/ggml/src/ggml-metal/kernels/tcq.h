// TCQ in Metal: blocks, how one thread decodes one word of the path, and the dequantization of 16 values that mul_mm and
// get_rows are made of. Compiled by Metal, and as C++ by tests/patches/metal.
//
// The path of a block is one little-endian string of bits. A thread takes one of its 32-bit words: a parity of all 32
// times is a few shifts and XORs, and bit k of byte y belongs to weight y of sub-block k. Sub-blocks kk and kk + 4
// share a byte of parities as two nibbles.

#pragma once

#include "dequantize.h"

#define TCQ_TABLE constant
#include "ggml-tcq-tables.h"

template <short R> struct block_tcq {
    uint8_t qs[32*R]; // 32 bytes of path, then the planes of lo bits
    uint8_t side[4];
};

template <short R> struct block_tcq_64 {
    uint8_t qs[8*R];
    uint8_t slot;
    uint8_t scale;
};

template <typename block_q> struct tcq_traits;

#define TCQ_DEFINE_TRAITS(R)                                                                                     \
    typedef block_tcq<R>    block_tcq##R;                                                                        \
    typedef block_tcq_64<R> block_tcq##R##_64;                                                                   \
    static_assert(sizeof(block_tcq##R)      == 32*R + 4, "wrong tcq block size/padding");                        \
    static_assert(sizeof(block_tcq##R##_64) ==  8*R + 2, "wrong tcq_64 block size/padding");                     \
    template <> struct tcq_traits<block_tcq##R> {                                                                \
        enum { rate = R, block_size = QK_TCQ, n_bytes = 32, n_words = 8, n_slots = 3 };                          \
        static constant const int8_t  * levels() { return tcq##R##_levels; }                                     \
        static constant const int16_t * slots () { return tcq##R##_slots;  }                                     \
        static constant const float   * scales() { return tcq_scale;       }                                     \
    };                                                                                                           \
    template <> struct tcq_traits<block_tcq##R##_64> {                                                           \
        enum { rate = R, block_size = QK_TCQ_64, n_bytes = 8, n_words = 2, n_slots = 1 };                        \
        static constant const int8_t  * levels() { return tcq##R##_levels;   }                                   \
        static constant const int16_t * slots () { return tcq##R##_64_slots; }                                   \
        static constant const float   * scales() { return tcq_scale_64;      }                                   \
    };
TCQ_RATES(TCQ_DEFINE_TRAITS)

template <short R>
uint32_t tcq_load_word(device const block_tcq<R> * xb, short word) {
    return ((device const uint32_t *) xb->qs)[word];
}

template <short R>
uint32_t tcq_load_word(device const block_tcq_64<R> * xb, short word) { // aligned to 2 bytes only
    device const uint16_t * halves = (device const uint16_t *) xb->qs;
    return halves[2*word] | (uint32_t) halves[2*word + 1] << 16;
}

// the side information: of blocks of 256 a word with the scale in its last byte, of blocks of 64 slot and scale
template <short R> uint32_t tcq_get_slots(device const block_tcq<R>    * xb) { return *(device const uint32_t *) xb->side; }
template <short R> uint32_t tcq_get_slots(device const block_tcq_64<R> * xb) { return xb->slot;                            }

template <typename block_q>
float tcq_get_scale(device const block_q * xb) {
    using T = tcq_traits<block_q>;
    device const uint8_t * end = (device const uint8_t *) (xb + 1);
    return T::scales()[tcq_scale_index(T::block_size, end[-1])];
}

// the parities of the 32 times of one word
struct tcq_parities { uint32_t z0, z1, z2, z3; };

template <typename block_q>
tcq_parities tcq_get_parities(device const block_q * xb, short word) {
    const short n_words = tcq_traits<block_q>::n_words;

    const uint32_t cur  = tcq_load_word(xb, word);
    const uint32_t prev = tcq_load_word(xb, (word + n_words - 1) % n_words);

    tcq_parities z = { 0, 0, 0, 0 };
    FOR_UNROLL (short b = 0; b < 9; ++b) {
        const uint32_t delayed = b == 0 ? cur : cur << b | prev >> (32 - b);
        z.z0 ^= TCQ_G0 >> b & 1 ? delayed : 0;
        z.z1 ^= TCQ_G1 >> b & 1 ? delayed : 0;
        z.z2 ^= TCQ_G2 >> b & 1 ? delayed : 0;
        z.z3 ^= TCQ_G3 >> b & 1 ? delayed : 0;
    }
    return z;
}

// bit `from` of every byte of x, as bit `to`
inline uint32_t tcq_move_bit(uint32_t x, short from, short to) {
    return (from < to ? x << (to - from) : x >> (from - to)) & 0x01010101u << to;
}

// the lo bits of sub-block k as bits 4.. of every byte
template <typename block_q>
uint32_t tcq_get_lo_index(thread const uint32_t * lo, short k) {
    using T = tcq_traits<block_q>;
    uint32_t index = 0;
    FOR_UNROLL (short b = 0; b < T::rate - 1; ++b) {
        const tcq_lo_bit at = tcq_get_lo_bit(T::block_size, T::rate, k, b);
        index |= tcq_move_bit(lo[at.plane], at.bit, TCQ_N_PARITIES + b);
    }
    return index;
}

template <typename block_q>
void tcq_load_lo(device const block_q * xb, short word, thread uint32_t * lo) {
    using T = tcq_traits<block_q>;
    FOR_UNROLL (short plane = 0; plane < T::rate - 1; ++plane) {
        lo[plane] = tcq_load_word(xb, (1 + plane)*T::n_words + word);
    }
}

// Level indices of the weights of one word of the path, as bytes: index[k] has those of bytes 4*word.. of sub-block k.
template <typename block_q>
void tcq_get_indices(device const block_q * xb, short word, thread uint32_t * index) {
    const tcq_parities z = tcq_get_parities(xb, word);

    uint32_t lo[5];
    tcq_load_lo(xb, word, lo);

    // from one word for each parity to one word for each pair of sub-blocks, with the subsets as nibbles
    const uint32_t even  = (z.z0      & 0x55555555) | (z.z1 << 1 & 0xaaaaaaaa);
    const uint32_t odd   = (z.z0 >> 1 & 0x55555555) | (z.z1      & 0xaaaaaaaa);
    const uint32_t even2 = (z.z2      & 0x55555555) | (z.z3 << 1 & 0xaaaaaaaa);
    const uint32_t odd2  = (z.z2 >> 1 & 0x55555555) | (z.z3      & 0xaaaaaaaa);
    const uint32_t subsets[4] = {
        (even      & 0x33333333) | (even2 << 2 & 0xcccccccc),
        (odd       & 0x33333333) | (odd2  << 2 & 0xcccccccc),
        (even >> 2 & 0x33333333) | (even2      & 0xcccccccc),
        (odd  >> 2 & 0x33333333) | (odd2       & 0xcccccccc),
    };
    FOR_UNROLL (short kk = 0; kk < 4; ++kk) {
        index[kk    ] = (subsets[kk]      & 0x0f0f0f0f) | tcq_get_lo_index<block_q>(lo, kk);
        index[kk + 4] = (subsets[kk] >> 4 & 0x0f0f0f0f) | tcq_get_lo_index<block_q>(lo, kk + 4);
    }
}

// weights 16*il.. of a block
template <typename block_q, typename type4x4>
void dequantize_tcq(device const block_q * xb, short il, thread type4x4 & reg) {
    using T = tcq_traits<block_q>;

    const float    d     = tcq_get_scale(xb);
    const uint32_t slots = tcq_get_slots(xb);

    FOR_UNROLL (short i = 0; i < 4; ++i) {
        const short first = 16*il + 4*i;
        const short k     = first/T::n_bytes;
        const short word  = first%T::n_bytes/4;

        const tcq_parities z = tcq_get_parities(xb, word);

        uint32_t lo[5];
        tcq_load_lo(xb, word, lo);

        const uint32_t index =
            (z.z0 >> k & 0x01010101)      | (z.z1 >> k & 0x01010101) << 1 |
            (z.z2 >> k & 0x01010101) << 2 | (z.z3 >> k & 0x01010101) << 3 | tcq_get_lo_index<block_q>(lo, k);

        short w[4];
        FOR_UNROLL (short j = 0; j < 4; ++j) {
            w[j] = T::levels()[index >> 8*j & 0xff];
        }
        FOR_UNROLL (short slot = 0; slot < T::n_slots; ++slot) {
            const short at    = tcq_slot_position(T::block_size, slots, slot) - first;
            const short value = T::slots()[tcq_slot_index(T::block_size, slots, slot)];
            FOR_UNROLL (short j = 0; j < 4; ++j) {
                w[j] += at == j ? value : 0;
            }
        }
        FOR_UNROLL (short j = 0; j < 4; ++j) {
            reg[i][j] = d*w[j];
        }
    }
}
