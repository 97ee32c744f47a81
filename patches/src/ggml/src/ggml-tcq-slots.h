// TCQ: how slots are written into a block of 256. For the encoders, in C and in CUDA; ggml-tcq-layout.h reads them.

#pragma once

#include "ggml-tcq-layout.h"

// one slot: what it would save, where, which of several magnitudes it adds, and whether it subtracts that instead
typedef struct {
    float    gain;
    uint32_t at;
    uint32_t value;
    uint32_t negative;
} tcq_slot;

// three slots at different weights: around the circle, starting behind the widest gap, so that no gap is above 127
TCQ_CONSTEXPR uint32_t tcq_join_slots(tcq_slot a, tcq_slot b, tcq_slot c) {
    if (a.at > b.at) { const tcq_slot t = a; a = b; b = t; }
    if (b.at > c.at) { const tcq_slot t = b; b = c; c = t; }
    if (a.at > b.at) { const tcq_slot t = a; a = b; b = t; }

    const uint32_t ab = b.at - a.at, bc = c.at - b.at, ca = QK_TCQ - (c.at - a.at);
    if (ab >= bc && ab >= ca) {
        return b.at | bc << 8 | ca << 15 | b.negative << 22 | c.negative << 23 | a.negative << 24;
    }
    if (bc >= ca) {
        return c.at | ca << 8 | ab << 15 | c.negative << 22 | a.negative << 23 | b.negative << 24;
    }
    return a.at | ab << 8 | bc << 15 | a.negative << 22 | b.negative << 23 | c.negative << 24;
}

// two slots as one great value, and a third one that is at most 127 ahead
TCQ_CONSTEXPR uint32_t tcq_join_great(tcq_slot great, int magnitude, tcq_slot slot) {
    const uint32_t ahead = (slot.at - great.at) & 0xff;
    return great.at | ahead << 15 | great.negative << 22 | (uint32_t) magnitude << 23 | slot.negative << 24;
}

// all three slots at one weight
TCQ_CONSTEXPR uint32_t tcq_join_alone(tcq_slot great, int magnitude, int negative) {
    return great.at | great.negative << 22 | (uint32_t) magnitude << 23 | (uint32_t) negative << 24;
}

// two great values of one magnitude, not at a distance of 128
TCQ_CONSTEXPR uint32_t tcq_join_greats(tcq_slot a, tcq_slot b, int magnitude) {
    if (((b.at - a.at) & 0xff) > 127) { const tcq_slot t = a; a = b; b = t; }

    const uint32_t ahead = (b.at - a.at) & 0xff;
    return a.at | ahead << 8 | a.negative << 22 | b.negative << 23 | (uint32_t) magnitude << 24;
}
