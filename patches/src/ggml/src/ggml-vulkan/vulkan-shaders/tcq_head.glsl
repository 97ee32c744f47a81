// TCQ in GLSL, what comes before the declaration of buffers: one shader serves all types, which the pipeline chooses by
// specialization constants. Blocks are read as words (of 256 weights) or halves of words (of 64).

#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_16bit_storage : require

#include "types.glsl"

layout (constant_id = 3) const uint TCQ_RATE       = 1;
layout (constant_id = 4) const uint TCQ_BLOCK_SIZE = 256;

#define A_TYPE          uint32_t
#define A_TYPE_PACKED16 uint16_t
#define QUANT_K         TCQ_BLOCK_SIZE
