#version 450

// Rows of a TCQ tensor: an invocation decodes one word of the path.

#include "tcq_head.glsl"
#include "generic_binary_head.glsl"
#include "tcq.glsl"

layout (local_size_x = 32, local_size_y = 1, local_size_z = 1) in;

void main() {
    tcq_init_levels(gl_WorkGroupSize.x);

    const uint block = gl_GlobalInvocationID.x/TCQ_WORDS;
    const uint word  = gl_GlobalInvocationID.x%TCQ_WORDS;
    if (block >= p.ne00/QUANT_K) {
        return;
    }

    for (uint z = gl_GlobalInvocationID.z; z < p.ne11*p.ne12; z += gl_NumWorkGroups.z) {
        for (uint i10 = gl_GlobalInvocationID.y; i10 < p.ne10; i10 += gl_NumWorkGroups.y) {
            const uint i11 = z/p.ne12;
            const uint i12 = z%p.ne12;
            const uint row = data_b[get_boffset() + i10*p.nb10 + i11*p.nb11 + i12*p.nb12];

            const uint ib    = get_aoffset() + row*p.nb01 + i11*p.nb02 + i12*p.nb03 + block;
            const uint first = get_doffset() + i10*p.nb21 + i11*p.nb22 + i12*p.nb23 + block*QUANT_K;

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
    }
}
