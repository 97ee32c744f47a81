#pragma once

// TCQ tiles are Q8_0 tiles with the slots in the padding (tcq-mmq.cuh), so they are cut like those of IQ4_XS.
static constexpr __host__ __device__ ggml_cuda_mmq_config tcq_mmq_get_config(ggml_type type, int J, bool fallback) {
    ggml_cuda_mmq_config config = ggml_cuda_mmq_get_config_ampere(GGML_TYPE_IQ4_XS, J, fallback);
#if defined(__CUDA_ARCH__) && !defined(TURING_MMA_AVAILABLE)
    config.type = GGML_TYPE_COUNT; // no code for older cards, which never ask for it (tcq_should_use_mmq)
#else
    if (config.type != GGML_TYPE_COUNT) {
        config.type = type;
    }
#endif // defined(__CUDA_ARCH__) && !defined(TURING_MMA_AVAILABLE)
    return config;
}
