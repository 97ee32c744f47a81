// The order in which ggml-quants.c takes the points of a grid when it makes the tables of an IQ type: by their distance,
// and by index where distances are equal. Upstream sorts with qsort, which is most of what these tables take: see
// tests/patches/test_iq_tables.py.

#pragma once

#include "ggml.h"

#include <string.h>

#define GGML_IQ_GRID_POINTS 2048        // at most: those of iq1_s
#define GGML_IQ_DISTANCES (4*14*14 + 1) // squared ones: iq3's 4 coordinates from 1 to 15; iq2's 8 from 1 to 7 give less

// pairs: n of (squared distance, index), in ascending order of the index
static inline void ggml_iq_sort_neighbours(int * pairs, int n) {
    int sorted[2*GGML_IQ_GRID_POINTS];
    int place[GGML_IQ_DISTANCES + 1] = { 0 };
    GGML_ASSERT(n <= GGML_IQ_GRID_POINTS);
    for (int i = 0; i < n; ++i) {
        ++place[pairs[2*i] + 1];
    }
    for (int d = 0; d < GGML_IQ_DISTANCES; ++d) {
        place[d + 1] += place[d];
    }
    for (int i = 0; i < n; ++i) {
        const int at = place[pairs[2*i]]++;
        sorted[2*at + 0] = pairs[2*i + 0];
        sorted[2*at + 1] = pairs[2*i + 1];
    }
    memcpy(pairs, sorted, 2*n*sizeof(int));
}
