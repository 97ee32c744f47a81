#version 450

// A TCQ tensor as floats, in any order of its rows: a workgroup decodes a block, an invocation one word of its path.

#include "tcq_head.glsl"
#include "generic_unary_head.glsl"
#include "tcq.glsl"

layout (local_size_x = 8, local_size_y = 1, local_size_z = 1) in;

void main() {
    tcq_init_levels(gl_WorkGroupSize.x);

    const uint idx  = gl_WorkGroupID.z*262144 + gl_WorkGroupID.y*512 + gl_WorkGroupID.x*QUANT_K;
    const uint word = gl_LocalInvocationID.x;
    if (idx >= p.ne || word >= TCQ_WORDS) {
        return;
    }
    const uint ib    = get_aoffset() + src0_idx_quant(idx, QUANT_K);
    const uint first = get_doffset() + dst_idx(idx);

    uint index[8];
    tcq_get_indices(ib, word, index);

    const uint  side = tcq_load_side(ib);
    const float d    = tcq_get_scale(side);
    [[unroll]] for (uint k = 0; k < 8; ++k) {
        const uint at = TCQ_SUB_BLOCK*k + 4*word;
        const vec4 w  = d*(tcq_get_levels(index[k]) + tcq_get_slots(side, at));
        [[unroll]] for (uint j = 0; j < 4; ++j) {
            data_d[first + at + j] = D_TYPE(w[j]);
        }
    }
}
