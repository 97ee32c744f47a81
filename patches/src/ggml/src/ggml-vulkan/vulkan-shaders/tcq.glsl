// TCQ in GLSL: how one invocation decodes one word of the path, the bits of 32 weights.
//
// The path of a block is one little-endian string of bits. A parity of all 32 times of a word is a few shifts and XORs,
// and bit k of byte y belongs to weight y of sub-block k. Sub-blocks kk and kk + 4 share a byte of parities as nibbles.

#include "tcq_tables.glsl"

#define TCQ_WORDS   (TCQ_BLOCK_SIZE/32)
#define TCQ_N_SLOTS (TCQ_BLOCK_SIZE == 256 ? 3 : 1)

// weight j of [k] is weight TCQ_SUB_BLOCK*k + 4*word + j of the block
#define TCQ_SUB_BLOCK (TCQ_BLOCK_SIZE/8)

shared float tcq_levels[TCQ_N_LEVELS];

// to be called by all invocations of a workgroup of n
void tcq_init_levels(const uint n) {
    for (uint i = gl_LocalInvocationIndex; i < TCQ_N_LEVELS/4; i += n) {
        const int levels = int(tcq_level_words[TCQ_FIRST_LEVEL_WORD + i]);
        [[unroll]] for (int j = 0; j < 4; ++j) {
            tcq_levels[4*i + j] = float(bitfieldExtract(levels, 8*j, 8));
        }
    }
    barrier();
}

uint tcq_load_word(const uint ib, const uint word) {
    if (TCQ_BLOCK_SIZE == 256) {
        return data_a[ib*(8*TCQ_RATE + 1) + word];
    }
    const uint at = ib*(4*TCQ_RATE + 1) + 2*word;
    return uint(data_a_packed16[at]) | uint(data_a_packed16[at + 1]) << 16;
}

// the side information: slots and scale
uint tcq_load_side(const uint ib) {
    if (TCQ_BLOCK_SIZE == 256) {
        return data_a[ib*(8*TCQ_RATE + 1) + 8*TCQ_RATE];
    }
    return uint(data_a_packed16[ib*(4*TCQ_RATE + 1) + 4*TCQ_RATE]);
}

float tcq_get_scale(const uint side) {
    const uint s = TCQ_BLOCK_SIZE == 256 ? side >> 25 : side >> 8;
    const uint least = uint(TCQ_SCALE_LEAST + 127);
    return s < 8 ? float(s)*uintBitsToFloat(least << 23) : uintBitsToFloat((s << 20) + (least + 2 << 23));
}

uint tcq_get_slot_position(const uint side, const uint slot) {
    if (TCQ_BLOCK_SIZE == 64) {
        return side & 0x3f;
    }
    return side + (slot > 0 ? side >> 8 & 0x7f : 0) + (slot > 1 ? side >> 15 & 0x7f : 0) & 0xff;
}

// what a slot adds, in level units
float tcq_get_slot_value(const uint side, const uint slot) {
    if (TCQ_BLOCK_SIZE == 64) {
        const int size = (side & 0x40) != 0 ? TCQ_SLOT_64_1 : TCQ_SLOT_64_0;
        return float((side & 0x80) != 0 ? -size : size);
    }
    // the first `great` slots are great values, whose magnitude the sign of the next one chooses: that one adds nothing
    const uint great = (side & 0x7f00) == 0 ? 1 : (side & 0x3f8000) == 0 ? 2 : 0;
    const bool minus = (side >> 22 + slot & 1) != 0;
    const int  size  = slot < great            ? ((side >> 22 + great & 1) != 0 ? TCQ_GREAT_1 : TCQ_GREAT_0) :
                       slot == great && great > 0 ? 0 : TCQ_SLOT;
    return float(minus ? -size : size);
}

// level indices of the weights of one word of the path, as bytes
void tcq_get_indices(const uint ib, const uint word, out uint index[8]) {
    uint z[4];
    tcq_get_parities(tcq_load_word(ib, word), tcq_load_word(ib, (word + TCQ_WORDS - 1) % TCQ_WORDS), z);

    uint lo[4];
    [[unroll]] for (uint plane = 0; plane < 4; ++plane) {
        lo[plane] = plane < TCQ_RATE - 1 ? tcq_load_word(ib, (1 + plane)*TCQ_WORDS + word) : 0;
    }

    // from one word for each parity to one word for each pair of sub-blocks
    const uint even  = (z[0]      & 0x55555555) | (z[1] << 1 & 0xaaaaaaaa);
    const uint odd   = (z[0] >> 1 & 0x55555555) | (z[1]      & 0xaaaaaaaa);
    const uint even2 = (z[2]      & 0x55555555) | (z[3] << 1 & 0xaaaaaaaa);
    const uint odd2  = (z[2] >> 1 & 0x55555555) | (z[3]      & 0xaaaaaaaa);
    const uint subsets[4] = {
        (even      & 0x33333333) | (even2 << 2 & 0xcccccccc),
        (odd       & 0x33333333) | (odd2  << 2 & 0xcccccccc),
        (even >> 2 & 0x33333333) | (even2      & 0xcccccccc),
        (odd  >> 2 & 0x33333333) | (odd2       & 0xcccccccc),
    };
    [[unroll]] for (uint kk = 0; kk < 4; ++kk) {
        index[kk    ] = (subsets[kk]      & 0x0f0f0f0f) | tcq_get_lo_index(lo, kk);
        index[kk + 4] = (subsets[kk] >> 4 & 0x0f0f0f0f) | tcq_get_lo_index(lo, kk + 4);
    }
}

vec4 tcq_get_levels(const uint index) {
    return vec4(tcq_levels[index       & 0xff], tcq_levels[index >>  8 & 0xff],
                tcq_levels[index >> 16 & 0xff], tcq_levels[index >> 24]);
}

// what the slots of a block add to weights first .. first + 3, in level units
vec4 tcq_get_slots(const uint side, const uint first) {
    vec4 added = vec4(0);
    [[unroll]] for (uint slot = 0; slot < TCQ_N_SLOTS; ++slot) {
        const uint at = tcq_get_slot_position(side, slot) - first;
        added += tcq_get_slot_value(side, slot)*vec4(equal(uvec4(at), uvec4(0, 1, 2, 3)));
    }
    return added;
}
