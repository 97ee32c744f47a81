#version 450

// A contiguous TCQ tensor as half precision: an invocation decodes one word of the path.

#include "dequant_head.glsl"
#include "tcq_head.glsl"

layout (local_size_x = 256, local_size_y = 1, local_size_z = 1) in;

layout (binding = 0) readonly buffer A {A_TYPE data_a[];};
layout (binding = 0) readonly buffer A_PACKED16 {A_TYPE_PACKED16 data_a_packed16[];};
layout (binding = 1) writeonly buffer D {f16vec4 data_d_v4[];};

#include "tcq.glsl"

void main() {
    tcq_init_levels(gl_WorkGroupSize.x);

    const uint ib   = gl_GlobalInvocationID.x/TCQ_WORDS;
    const uint word = gl_GlobalInvocationID.x%TCQ_WORDS;
    if (ib >= p.nel/QUANT_K) {
        return;
    }

    uint index[8];
    tcq_get_indices(ib, word, index);

    const uint  side = tcq_load_side(ib);
    const float d    = tcq_get_scale(side);
    [[unroll]] for (uint k = 0; k < 8; ++k) {
        const uint first = TCQ_SUB_BLOCK*k + 4*word;
        data_d_v4[(ib*QUANT_K + first)/4] = f16vec4(d*(tcq_get_levels(index[k]) + tcq_get_slots(side, first)));
    }
}
