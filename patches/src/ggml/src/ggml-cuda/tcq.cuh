// TCQ on CUDA: how one thread decodes 32 weights, and the host entry points.
//
// The path of a block is one little-endian string of bits. A thread takes one of its 32-bit words: a parity of all 32
// times is a few funnel shifts and XORs, and bit k of byte y belongs to weight y of sub-block k. Sub-blocks kk and
// kk + 4 share a byte of parities as two nibbles, so weights come out in the order of those nibbles:
//     word 2*kk + h, byte 2*i + p: weight (kk + 4*p)*n_bytes + 4*word + 2*h + i
// with kk = 0..3, h, i, p = 0..1 and n_bytes the bytes of the path. Activations for mmvq are stored in the same order.

#pragma once

#include "common.cuh"

#define TCQ_TABLE static constexpr __device__
#include "ggml-tcq-tables.h"
#include "ggml-tcq.h"

// ---------------------------------------------------------------------------------------------------------------
// types

static constexpr __host__ __device__ bool tcq_is_type(ggml_type type) {
    return (type >= GGML_TYPE_TCQ1    && type < GGML_TYPE_TCQ1    + TCQ_N_RATES) ||
           (type >= GGML_TYPE_TCQ1_64 && type < GGML_TYPE_TCQ1_64 + TCQ_N_RATES);
}

template <int rate_, int block_size_, int type_size_>
struct tcq_layout {
    static constexpr int rate       = rate_;
    static constexpr int block_size = block_size_;
    static constexpr int type_size  = type_size_;
    static constexpr int n_bytes    = block_size/8;            // of the path, and of any plane of lo bits
    static constexpr int n_words    = block_size/32;           // threads that share a block
    static constexpr int n_slots    = tcq_n_slots(block_size);
};

template <ggml_type type> struct tcq_traits;

#define TCQ_DEFINE_TRAITS(name, NAME, qk_)                                                       \
    template<> struct tcq_traits<GGML_TYPE_##NAME> :                                             \
        tcq_layout<(int) sizeof(block_##name)*8/qk_, qk_, (int) sizeof(block_##name)> {          \
        static __device__ constexpr int16_t slot(int i) { return name##_slots[i]; }              \
    };                                                                                           \
    template<> struct ggml_cuda_type_traits<GGML_TYPE_##NAME> {                                  \
        static constexpr int qk = qk_;                                                           \
        static constexpr int qr = 1;                                                             \
        static constexpr int qi = qk_/32;                                                        \
        static constexpr int bs = sizeof(block_##name);                                          \
    };
TCQ_FOR_EACH_TYPE(TCQ_DEFINE_TRAITS)

// ---------------------------------------------------------------------------------------------------------------
// layout of a block

// 32 bits of a block; blocks of 64 are aligned to 2 bytes only
template <typename T>
static __device__ __forceinline__ uint32_t tcq_load_word(const uint8_t * at) {
    if constexpr (T::block_size == QK_TCQ) {
        return *(const uint32_t *) at;
    } else {
        return ((const uint16_t *) at)[0] | (uint32_t) ((const uint16_t *) at)[1] << 16;
    }
}

// the word of the path before this one
template <typename T>
static __device__ __forceinline__ uint32_t tcq_load_previous_word(const uint8_t * block, uint32_t word) {
    return tcq_load_word<T>(block + 4*((word + T::n_words - 1) % T::n_words));
}

// the block's last bytes, its side information
template <typename T>
static __device__ __forceinline__ uint32_t tcq_load_tail(const uint8_t * block) {
    if constexpr (T::block_size == QK_TCQ) {
        return *(const uint32_t *) (block + T::rate*T::n_bytes);
    } else {
        return *(const uint16_t *) (block + T::rate*T::n_bytes);
    }
}

// e4m3 and e5m3 are floats with a short exponent, denormals included, so the product must keep denormals (no .ftz)
template <typename T>
static __device__ __forceinline__ float tcq_get_scale(uint32_t tail) {
    constexpr float least  = T::block_size == QK_TCQ ? tcq_scale[1] : tcq_scale_64[1]; // whose float below is 2^-129
    constexpr float factor = least*0x1p100f*0x1p29f;

    const uint32_t s = tcq_scale_index(T::block_size, tail >> (T::block_size == QK_TCQ ? 24 : 8));
    float d;
    asm("mul.f32 %0, %1, %2;" : "=f"(d) : "f"(__uint_as_float(s << 20)), "f"(factor));
    return d;
}

template <typename T>
static __device__ __forceinline__ int tcq_get_slot_position(uint32_t tail, int slot) {
    return tcq_slot_position(T::block_size, tail, slot);
}

template <typename T>
static __device__ __forceinline__ int tcq_get_slot_value(uint32_t tail, int slot) {
    const int values = tcq_slot_values(T::block_size, tail);
    if constexpr (T::block_size == QK_TCQ) {
        if (values < 4*8) { // no gap is 0, as in most blocks: slots differ in their signs
            return values >> slot & 4 ? -T::slot(0) : T::slot(0);
        }
        return T::slot(values + slot);
    } else {
        const int magnitude = values & 1 ? T::slot(1) : T::slot(0);
        return values & 2 ? -magnitude : magnitude;
    }
}

static __device__ __forceinline__ uint32_t tcq_prmt(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
    return r;
}

// a where the mask has ones, else b: one instruction, where the compiler would make two of a constant mask
static __device__ __forceinline__ uint32_t tcq_select(uint32_t mask, uint32_t a, uint32_t b) {
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, 0xe4;" : "=r"(r) : "r"(a), "r"(b), "r"(mask));
    return r;
}

// a & mask, hidden from the compiler, which would move the mask into the selections that follow
static __device__ __forceinline__ uint32_t tcq_and(uint32_t a, uint32_t mask) {
    uint32_t r;
    asm("and.b32 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(mask));
    return r;
}

// ---------------------------------------------------------------------------------------------------------------
// levels

// four levels, or with sign = -1 their opposites
template <int rate, int sign = 1>
static __host__ __device__ constexpr uint32_t tcq_level_word(int i) {
    const int8_t * levels = TCQ_BY_RATE(rate, _levels);
    return (uint32_t) (uint8_t) (sign*levels[4*i + 0])       | (uint32_t) (uint8_t) (sign*levels[4*i + 1]) <<  8 |
           (uint32_t) (uint8_t) (sign*levels[4*i + 2]) << 16 | (uint32_t) (uint8_t) (sign*levels[4*i + 3]) << 24;
}

// The first operands of the permutes that select them. `zero` is 0, but unknown to the compiler, which would otherwise make
// these constants again for every permute.
template <int rate>
struct tcq_level_words {
    uint32_t first[2];
    __device__ __forceinline__ tcq_level_words(uint32_t zero = 0) :
        first{ tcq_level_word<rate, rate == 1 ? -1 : 1>(0) | zero, tcq_level_word<rate>(2) | zero } {}
};

// Levels are selected from registers by byte permutes, or looked up in shared memory, where they are at most 32 words: one for
// each bank, so that any 32 lanes are served at once. Of the four pairs of sub-blocks, so many are looked up: at rate 2 half of
// them, because permutes and look-ups are the work of different pipes.
static constexpr __host__ __device__ int tcq_pairs_in_shared(int rate) {
    return rate == 1 ? 0 : rate == 2 ? 2 : 4;
}

// Levels are mirrored about zero: the complement of an index has the opposite level. Where all of them are too many, the
// lower half, with its indices' highest bit clear, serves both.
static constexpr __host__ __device__ bool tcq_levels_mirrored(int rate, int pair) {
    return rate == 5 || (rate == 2 && pair >= tcq_pairs_in_shared(rate));
}

// is `minus` below in use
static constexpr __host__ __device__ bool tcq_has_minus(int rate, int pair) {
    return rate == 1 || tcq_levels_mirrored(rate, pair);
}

// 32 levels as bytes of v, in the order at the top of this file. Of mirrored ones this is the one's complement where they
// come from the lower half, and `minus` is -1 there, else 0: a level is v - minus. At rate 1, one of the two is 0.
struct tcq_levels {
    uint32_t v    [8];
    uint32_t minus[8];
};

template <typename T>
struct tcq_level_table {
    static constexpr int n_words = (tcq_levels_mirrored(T::rate, 0) ? 1 : 2) << T::rate;
    uint32_t words[n_words];

    constexpr tcq_level_table() : words() {
        for (int i = 0; i < n_words; ++i) {
            words[i] = tcq_level_word<T::rate>(i);
        }
    }
};

template <typename T>
static __device__ const tcq_level_table<T> tcq_level_table_of;

// aligned, so that the low byte of its address is free for the index of a level
static __shared__ __align__(256) uint32_t tcq_shared_levels[32];

// every thread of a kernel that decodes TCQ calls this before it does; it holds a barrier
template <ggml_type type>
static __device__ __forceinline__ void tcq_init_levels() {
    if constexpr (tcq_is_type(type)) {
        using T = tcq_traits<type>;
        if constexpr (tcq_pairs_in_shared(T::rate) > 0) {
            const int i = threadIdx.y*blockDim.x + threadIdx.x; // of a warp at least
            if (i < tcq_level_table<T>::n_words) {
                tcq_shared_levels[i] = tcq_level_table_of<T>.words[i];
            }
            __syncthreads();
        }
    }
}

// 0xff where the highest bit of the selected byte is set, else 0x00
template <uint32_t selector>
static __device__ __forceinline__ uint32_t tcq_byte_mask(uint32_t a, uint32_t b) {
    return tcq_prmt(a, b, selector | 0x8888);
}

// a plane with bit `from` of every byte at bit `to`, and the bits beside it beside it
template <int from, int to>
static __device__ __forceinline__ uint32_t tcq_move_bits(uint32_t plane) {
    if constexpr (from <= to) {
        return plane << (to - from);
    } else {
        return plane >> (from - to);
    }
}

// The lo bits of sub-block k as bits 4.. of every byte, at rates 2 to 5. Zeros are above them, anything is below. From rate 3
// on, two of them are neighbours in one plane: rate 5 has two such pairs, and rate 4 a single bit beside its pair.
template <typename T, int k>
static __device__ __forceinline__ uint32_t tcq_lo_index(const uint32_t (&lo)[5]) {
    constexpr int single = T::rate == 2 || (T::rate == 4 && T::block_size == QK_TCQ_64) ? 0 : T::rate == 4 ? 2 : -1;
    constexpr int paired = single == 0 ? 1 : 0; // the lower one of a pair
    uint32_t pair = 0;
    if constexpr (T::rate >= 3) {
        constexpr tcq_lo_bit at = tcq_get_lo_bit(T::block_size, T::rate, k, paired);
        pair = tcq_move_bits<at.bit, 4 + paired>(lo[at.plane]);
    }
    if constexpr (T::rate == 3) {
        return pair & 0x30303030;
    } else if constexpr (T::rate == 5) {
        constexpr tcq_lo_bit at = tcq_get_lo_bit(T::block_size, T::rate, k, 2);
        return tcq_select(0x30303030, pair, tcq_move_bits<at.bit, 6>(lo[at.plane]));
    } else {
        constexpr tcq_lo_bit at = tcq_get_lo_bit(T::block_size, T::rate, k, single);
        if constexpr (T::rate == 2) {
            return tcq_move_bits<at.bit, 4>(lo[at.plane]) & 0x10101010;
        } else {
            const uint32_t every_other = tcq_and(lo[at.plane], 0x55555555 << (at.bit & 1)); // shared by four sub-blocks,
            return tcq_select(0x30303030 << paired, pair, tcq_move_bits<at.bit, 4 + single>(every_other)); // so bit 7 is clear
        }
    }
}

static __device__ __forceinline__ uint32_t tcq_mad(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

static __device__ __forceinline__ uint32_t tcq_load_shared(uint32_t address) {
    uint32_t r;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(r) : "r"(address)); // volatile: stays after the barrier
    return r;
}

// byte k of the index under the address of the tables, on the multiplier pipe where there is such an instruction
template <int k>
static __device__ __forceinline__ uint32_t tcq_level_address(uint32_t index, uint32_t tables) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= GGML_CUDA_CC_DP4A
    uint32_t r;
    asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(index), "r"(1u << 8*k), "r"(tables));
    return r;
#else
    return tcq_prmt(index, tables, 0x7650 + k);
#endif
}

// Four levels by the bytes first and first + 1 of two indices. Extracting a byte and putting it under the table's address
// is one instruction; these and the packing go to the multiplier pipe, because the integer pipe, with shifts, logic and byte
// permutes, has more to do.
template <int first>
static __device__ __forceinline__ uint32_t tcq_look_up(uint32_t index0, uint32_t index1) {
    const uint32_t tables = (uint32_t) __cvta_generic_to_shared(tcq_shared_levels);
    const uint32_t l0 = tcq_load_shared(tcq_level_address<first>(index0, tables));
    const uint32_t l1 = tcq_load_shared(tcq_level_address<first>(index1, tables));
    const uint32_t l2 = tcq_load_shared(tcq_level_address<first + 1>(index0, tables));
    const uint32_t l3 = tcq_load_shared(tcq_level_address<first + 1>(index1, tables));
    return tcq_mad(tcq_mad(l3, 256, l2), 65536, tcq_mad(l1, 256, l0));
}

// the order in which bytes 2*h and 2*h + 1 of sub-blocks kk and kk + 4 come out: byte, its twin, next byte, its twin
template <int h>
static constexpr uint32_t tcq_pair_order = h == 0 ? 0x5140 : 0x7362;

// Rate 2: 16 levels by two permutes, of the lower half, whose levels are all negative. A selector with z3 set makes the permute spread the
// sign of its level, so each permute gives ones where the other one's level counts.
template <typename T, int h>
static __device__ __forceinline__ uint32_t tcq_permute_negative(uint32_t selectors, const tcq_level_words<T::rate> & words) {
    static_assert(tcq_level_word<T::rate>(3) >> 31 == 1, "the greatest level of the lower half is negative");
    return tcq_prmt(words.first[0], tcq_level_word<T::rate>(1), selectors >> 16*h) &
           tcq_prmt(words.first[1], tcq_level_word<T::rate>(3), (selectors ^ 0x88888888) >> 16*h);
}

// the highest lo bits of sub-blocks kk and kk + 4 as nibbles 0 or 15, at rate 2
template <typename T, int kk>
static __device__ __forceinline__ uint32_t tcq_lo_nibbles(const uint32_t (&lo)[5]) {
    constexpr tcq_lo_bit at0 = tcq_get_lo_bit(T::block_size, T::rate, kk,     0);
    constexpr tcq_lo_bit at1 = tcq_get_lo_bit(T::block_size, T::rate, kk + 4, 0);
    const uint32_t high = at1.bit < 4 ? lo[at1.plane] << ((4 - at1.bit) & 7) : lo[at1.plane] >> ((at1.bit - 4) & 7);
    return tcq_mad((lo[at0.plane] >> at0.bit & 0x01010101) | (high & 0x10101010), 15, 0);
}

// eight levels, words 2*kk and 2*kk + 1: the four bytes of sub-blocks kk and kk + 4; selectors has the subsets as nibbles
template <typename T, int kk>
static __device__ __forceinline__ void tcq_get_levels(
        uint32_t selectors, const uint32_t (&lo)[5], const tcq_level_words<T::rate> & words, tcq_levels & l) {
    uint32_t * v     = l.v     + 2*kk;
    uint32_t * minus = l.minus + 2*kk;
    if constexpr (T::rate == 1) {
        const uint32_t others = selectors ^ 0x88888888;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            v[h]     = tcq_prmt(words.first[1], tcq_level_word<T::rate>(3), others    >> 16*h);
            minus[h] = tcq_prmt(words.first[0], tcq_level_word<T::rate, -1>(1), selectors >> 16*h);
        }
    } else if constexpr (kk >= tcq_pairs_in_shared(T::rate)) {
        const uint32_t upper = tcq_lo_nibbles<T, kk>(lo);
        minus[0] = tcq_byte_mask<tcq_pair_order<0>>(upper << 4, upper);
        minus[1] = tcq_byte_mask<tcq_pair_order<1>>(upper << 4, upper);
        v[0] = tcq_permute_negative<T, 0>(selectors ^ upper, words) ^ minus[0];
        v[1] = tcq_permute_negative<T, 1>(selectors ^ upper, words) ^ minus[1];
    } else {
        uint32_t index0 = tcq_select(0x0f0f0f0f, selectors,      tcq_lo_index<T, kk    >(lo));
        uint32_t index1 = tcq_select(0x0f0f0f0f, selectors >> 4, tcq_lo_index<T, kk + 4>(lo));
        if constexpr (tcq_levels_mirrored(T::rate, kk)) {
            minus[0] = tcq_byte_mask<tcq_pair_order<0>>(index0, index1);
            minus[1] = tcq_byte_mask<tcq_pair_order<1>>(index0, index1);
            index0 = (index0 ^ tcq_byte_mask<0x3210>(index0, index0)) & 0x7f7f7f7f;
            index1 = (index1 ^ tcq_byte_mask<0x3210>(index1, index1)) & 0x7f7f7f7f;
        }
        v[0] = tcq_look_up<0>(index0, index1);
        v[1] = tcq_look_up<2>(index0, index1);
        if constexpr (tcq_levels_mirrored(T::rate, kk)) {
            v[0] ^= minus[0];
            v[1] ^= minus[1];
        }
    }
}

template <uint32_t generator>
static __device__ __forceinline__ uint32_t tcq_parity(const uint32_t (&delayed)[9]) {
    uint32_t z = 0;
#pragma unroll
    for (int b = 0; b < 9; ++b) {
        if (generator >> b & 1) {
            z ^= delayed[b];
        }
    }
    return z;
}

// a word of the path, and of the planes of lo bits what belongs to the same weights
template <typename T>
struct tcq_word {
    uint32_t path;
    uint32_t lo[5];
};

template <typename T>
static __device__ __forceinline__ tcq_word<T> tcq_load_words(const uint8_t * block, uint32_t word) {
    tcq_word<T> w;
    w.path = tcq_load_word<T>(block + 4*word);
#pragma unroll
    for (int plane = 0; plane < T::rate - 1; ++plane) {
        w.lo[plane] = tcq_load_word<T>(block + 4*word + (1 + plane)*T::n_bytes);
    }
    return w;
}

// The 32 levels of one word of the path; prev is the word of the path before it.
template <typename T>
static __device__ __forceinline__ tcq_levels tcq_unpack_levels(
        uint32_t prev, const tcq_word<T> & word, const tcq_level_words<T::rate> & words = {}) {
    uint32_t delayed[9]; // the path, b steps older
#pragma unroll
    for (int b = 0; b < 9; ++b) {
        delayed[b] = __funnelshift_l(prev, word.path, b);
    }
    const uint32_t z0 = tcq_parity<TCQ_G0>(delayed);
    const uint32_t z1 = tcq_parity<TCQ_G1>(delayed);
    const uint32_t z2 = tcq_parity<TCQ_G2>(delayed);
    const uint32_t z3 = tcq_parity<TCQ_G3>(delayed);

    // from one word for each parity to one word for each pair of sub-blocks, with the subsets as nibbles
    const uint32_t even  = tcq_select(0x55555555, z0,      z1 << 1);
    const uint32_t odd   = tcq_select(0x55555555, z0 >> 1, z1);
    const uint32_t even2 = tcq_select(0x55555555, z2,      z3 << 1);
    const uint32_t odd2  = tcq_select(0x55555555, z2 >> 1, z3);

    tcq_levels l;
    tcq_get_levels<T, 0>(tcq_select(0x33333333, even,      even2 << 2), word.lo, words, l);
    tcq_get_levels<T, 1>(tcq_select(0x33333333, odd,       odd2  << 2), word.lo, words, l);
    tcq_get_levels<T, 2>(tcq_select(0x33333333, even >> 2, even2),      word.lo, words, l);
    tcq_get_levels<T, 3>(tcq_select(0x33333333, odd  >> 2, odd2),       word.lo, words, l);
    return l;
}

template <typename T>
static __device__ __forceinline__ tcq_levels tcq_unpack_levels(const uint8_t * block, int word) {
    return tcq_unpack_levels<T>(tcq_load_previous_word<T>(block, word), tcq_load_words<T>(block, word));
}

// four neighbouring weights of sub-block k, from the order above
static __device__ __forceinline__ uint32_t tcq_natural_order(const uint32_t (&v)[8], int k) {
    return tcq_prmt(v[2*(k & 3)], v[2*(k & 3) + 1], k < 4 ? 0x6420 : 0x7531);
}

// the levels of these as int8
template <typename T>
static __device__ __forceinline__ uint32_t tcq_natural_levels(const tcq_levels & l, int k) {
    const uint32_t v = tcq_natural_order(l.v, k);
    return tcq_has_minus(T::rate, k & 3) ? __vsub4(v, tcq_natural_order(l.minus, k)) : v;
}

// ---------------------------------------------------------------------------------------------------------------
// activations

// Activations for mmvq: one scale per block of weights, as on the CPU, in the order of the decoder. They fill the space
// that the same values take as block_q8_1.
struct block_tcq_q8_256 {
    int8_t qs[QK_TCQ];    // [kk/2][word][kk%2][h]
    float  d;
    float  padding[7];
};
static_assert(sizeof(block_tcq_q8_256) == QK_TCQ/QK8_1*sizeof(block_q8_1), "has to fill the same space");

struct block_tcq_q8_64 {
    int8_t qs[QK_TCQ_64]; // [word][kk][h]
    float  d;
    float  padding;
};
static_assert(sizeof(block_tcq_q8_64) == QK_TCQ_64/QK8_1*sizeof(block_q8_1), "has to fill the same space");

// offset of a block's weight in those
template <typename T>
static __device__ __forceinline__ int tcq_q8_offset(int weight) {
    if constexpr (T::block_size == QK_TCQ) {
        return (weight & 0x40) << 1 | (weight & 0x1c) << 2 | (weight & 0x20) >> 2 | (weight & 3) << 1 | weight >> 7;
    } else {
        const int k = weight >> 3;
        return 32*(weight >> 2 & 1) + 8*(k & 3) + 2*(weight & 3) + (k >> 2);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// host

// On an H100 dequantization and cuBLAS overtake MMQ between 128 and 256 columns (docs/kernels-gpu.md). Cards whose half
// precision is slower relative to int8 were not measured and keep MMQ, as do experts, whose other path waits for the host.
static inline bool tcq_should_use_mmq(int cc, int64_t ne11, int64_t n_experts) {
    return turing_mma_available(cc) && (cc != GGML_CUDA_CC_HOPPER || n_experts > 0 || ne11 < 192);
}

// the rest is in tcq.cu

// float rows to the activations above; arguments as quantize_row_q8_1_cuda's
void tcq_quantize_row_q8_cuda(
    const float * x, void * vy, ggml_type type_src0, int64_t ne00, int64_t s01, int64_t s02, int64_t s03,
    int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3, cudaStream_t stream);

// dequantization of contiguous and of strided rows, as in convert.cuh; nullptr for any other type
template <typename dst_t> using tcq_to_t_cuda_t    = void (*)(const void * x, dst_t * y, int64_t k, cudaStream_t stream);
template <typename dst_t> using tcq_to_t_nc_cuda_t = void (*)(const void * x, dst_t * y,
    int64_t ne00, int64_t ne01, int64_t ne02, int64_t ne03, int64_t s01, int64_t s02, int64_t s03, cudaStream_t stream);
template <typename dst_t> tcq_to_t_cuda_t<dst_t>    tcq_get_to_t_cuda   (ggml_type type);
template <typename dst_t> tcq_to_t_nc_cuda_t<dst_t> tcq_get_to_t_nc_cuda(ggml_type type);

// arguments as ggml_cuda_get_rows_switch_src0_type's
template <typename dst_t>
void tcq_get_rows_cuda(
    const void * src0_d, ggml_type src0_type, const int32_t * src1_d, dst_t * dst_d,
    int64_t ne00, size_t nb01, size_t nb02, size_t nb03,
    int64_t ne10, int64_t ne11, int64_t ne12, size_t nb10, size_t nb11, size_t nb12,
    size_t nb1, size_t nb2, size_t nb3, cudaStream_t stream);
