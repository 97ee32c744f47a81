#pragma once

#include "common.cuh"

#define CUDA_DEQUANTIZE_BLOCK_SIZE 256

template <typename T> static T ggml_cuda_cast(float x) { return { x }; }
template <> int32_t ggml_cuda_cast<int32_t>(float x) { return (int32_t) x; }
