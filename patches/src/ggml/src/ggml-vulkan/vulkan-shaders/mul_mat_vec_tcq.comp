#version 450

// TCQ matrix-vector products: an invocation multiplies 32 weights (one word of the path) of NUM_ROWS rows with the same
// 32 values of each of NUM_COLS columns.

#extension GL_EXT_shader_explicit_arithmetic_types_int32 : require

#include "tcq_head.glsl"
#include "mul_mat_vec_base.glsl"
#include "tcq.glsl"

layout (local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

FLOAT_TYPE temp[NUM_COLS][NUM_ROWS];

void calc_word(const uint ib[NUM_ROWS], const uint b_offset, const uint word, const uint i) {
    const uint y_idx = b_offset + i*QUANT_K;

    uint index[NUM_ROWS][8];
    [[unroll]] for (uint n = 0; n < NUM_ROWS; ++n) {
        tcq_get_indices(ib[n] + i, word, index[n]);
    }

    FLOAT_TYPE sum[NUM_COLS][NUM_ROWS];
    [[unroll]] for (uint j = 0; j < NUM_COLS; ++j) {
        [[unroll]] for (uint n = 0; n < NUM_ROWS; ++n) {
            sum[j][n] = FLOAT_TYPE(0);
        }
    }

    [[unroll]] for (uint k = 0; k < 8; ++k) {
        vec4 w[NUM_ROWS];
        [[unroll]] for (uint n = 0; n < NUM_ROWS; ++n) {
            w[n] = tcq_get_levels(index[n][k]);
        }
        [[unroll]] for (uint j = 0; j < NUM_COLS; ++j) {
            const vec4 y = vec4(data_b_v4[(j*p.batch_stride_b + y_idx + TCQ_SUB_BLOCK*k)/4 + word]);
            [[unroll]] for (uint n = 0; n < NUM_ROWS; ++n) {
                sum[j][n] = fma(w[n].x, y.x, fma(w[n].y, y.y, fma(w[n].z, y.z, fma(w[n].w, y.w, sum[j][n]))));
            }
        }
    }

    [[unroll]] for (uint n = 0; n < NUM_ROWS; ++n) {
        const uint side = tcq_load_side(ib[n] + i);
        if (word < TCQ_N_SLOTS) {
            const uint  at    = tcq_get_slot_position(side, word);
            const float value = tcq_get_slot_value(side, word);
            [[unroll]] for (uint j = 0; j < NUM_COLS; ++j) {
                sum[j][n] = fma(value, FLOAT_TYPE(data_b[j*p.batch_stride_b + y_idx + at]), sum[j][n]);
            }
        }
        const float d = tcq_get_scale(side);
        [[unroll]] for (uint j = 0; j < NUM_COLS; ++j) {
            temp[j][n] = fma(d, sum[j][n], temp[j][n]);
        }
    }
}

void main() {
    const uint first_row = NUM_ROWS*(gl_WorkGroupID.x + gl_NumWorkGroups.x*gl_WorkGroupID.z);
    const uint tid       = gl_LocalInvocationID.x;

    tcq_init_levels(BLOCK_SIZE);

    if (first_row >= p.stride_d) {
        return;
    }

    uint a_offset, b_offset, d_offset;
    get_offsets(a_offset, b_offset, d_offset);

    const uint num_blocks_per_row = p.ncols/QUANT_K;

    uint ib[NUM_ROWS];
    [[unroll]] for (uint n = 0; n < NUM_ROWS; ++n) { // rows past the end repeat the last and are not stored
        ib[n] = a_offset + min(first_row + n, p.stride_d - 1)*num_blocks_per_row;
    }
    [[unroll]] for (uint j = 0; j < NUM_COLS; ++j) {
        [[unroll]] for (uint n = 0; n < NUM_ROWS; ++n) {
            temp[j][n] = FLOAT_TYPE(0);
        }
    }

    for (uint i = tid/TCQ_WORDS; i < num_blocks_per_row; i += BLOCK_SIZE/TCQ_WORDS) {
        calc_word(ib, b_offset, tid%TCQ_WORDS, i);
    }

    if (first_row + NUM_ROWS <= p.stride_d) {
        reduce_result(temp, d_offset, first_row, NUM_ROWS, tid);
    } else {
        reduce_result(temp, d_offset, first_row, p.stride_d - first_row, tid);
    }
}
