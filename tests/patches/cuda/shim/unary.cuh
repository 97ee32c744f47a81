// the gates that may follow a product, from their definitions

#pragma once

#include "common.cuh"

static float ggml_cuda_op_silu_single(float x) { return x/(1.0f + expf(-x)); }

static float ggml_cuda_op_gelu_single(float x) {
    return 0.5f*x*(1.0f + tanhf(0.7978845608f*(x + 0.044715f*x*x*x)));
}

static float ggml_cuda_op_swiglu_oai_single(float gate, float up, float alpha = 1.702f, float limit = 7.0f) {
    gate = std::min(gate, limit);
    up   = std::max(-limit, std::min(up, limit));
    return gate/(1.0f + expf(-alpha*gate))*(1.0f + up);
}

static float ggml_cuda_op_swiglu_clamp_single(float gate, float up, float limit) {
    return ggml_cuda_op_silu_single(std::min(gate, limit))*std::max(-limit, std::min(up, limit));
}
