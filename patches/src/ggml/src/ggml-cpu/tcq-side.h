// The side information of blocks of 256 in SIMD kernels, which include this after they have set their target: they could
// not inline ggml-tcq-layout.h's functions where the whole build has a larger one.

#pragma once

#include <string.h>

TCQ_INLINE uint32_t tcq_load_side(const uint8_t * p) {
    uint32_t side;
    memcpy(&side, p, sizeof(side));
    return side;
}

TCQ_INLINE float tcq_side_scale(uint32_t side) {
    return tcq_scale[side >> 25];
}

// what the slots, of the values tcqR_slots, add to a product with q
TCQ_INLINE int32_t tcq_dot_slots(const int16_t * slots, uint32_t side, const int8_t * q) {
    const uint32_t gap_1 = side >> 8 & 0x7f, gap_2 = side >> 15 & 0x7f;
    const uint8_t  p0 = side, p1 = p0 + gap_1, p2 = p1 + gap_2;

    const int16_t * value = slots + 4*(side >> 22 & 7);
    if (__builtin_expect(gap_1 == 0 || gap_2 == 0, 0)) {
        value += 4*(8*(gap_1 == 0) + 16*(gap_2 == 0));
    }
    return value[0]*q[p0] + value[1]*q[p1] + value[2]*q[p2];
}
