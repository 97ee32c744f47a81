// TCQ in the Vulkan backend: its pipelines, and what it supports. Included by ggml-vulkan.cpp alone.

#pragma once

#include "ggml-tcq.h"

// rows of a matrix-vector product that one invocation multiplies with the same values
static constexpr uint32_t tcq_mul_mat_vec_rows = 4;

// weights that a workgroup of dequant_tcq.comp makes
static constexpr uint32_t tcq_dequant_weights = 256*32;

// `create` is ggml_vk_load_shaders' way to create a pipeline
template <typename create_t>
static void ggml_vk_create_tcq_pipelines(vk_device & device, const create_t & create, bool use_subgroups,
                                         uint32_t subgroup_size) {
    const uint32_t n_words = QK_TCQ/32; // a block of 256 takes as many invocations of a workgroup
    use_subgroups = use_subgroups && subgroup_size >= n_words;
    subgroup_size = std::max(subgroup_size, n_words);

    struct shader { uint64_t len; const void * data; };
    const shader mul_mat_vec_f32[] = { // by shader_reduction_mode
        { mul_mat_vec_tcq_f32_f32_len,                       mul_mat_vec_tcq_f32_f32_data },
        { mul_mat_vec_tcq_f32_f32_subgroup_len,              mul_mat_vec_tcq_f32_f32_subgroup_data },
        { mul_mat_vec_tcq_f32_f32_subgroup_no_shmem_len,     mul_mat_vec_tcq_f32_f32_subgroup_no_shmem_data },
    };
    const shader mul_mat_vec_f16[] = {
        { mul_mat_vec_tcq_f16_f32_len,                       mul_mat_vec_tcq_f16_f32_data },
        { mul_mat_vec_tcq_f16_f32_subgroup_len,              mul_mat_vec_tcq_f16_f32_subgroup_data },
        { mul_mat_vec_tcq_f16_f32_subgroup_no_shmem_len,     mul_mat_vec_tcq_f16_f32_subgroup_no_shmem_data },
    };
    const shader mul_mat_vec_id[] = {
        { mul_mat_vec_id_tcq_f32_f32_len,                    mul_mat_vec_id_tcq_f32_f32_data },
        { mul_mat_vec_id_tcq_f32_f32_subgroup_len,           mul_mat_vec_id_tcq_f32_f32_subgroup_data },
        { mul_mat_vec_id_tcq_f32_f32_subgroup_no_shmem_len,  mul_mat_vec_id_tcq_f32_f32_subgroup_no_shmem_data },
    };
    const uint32_t rows = tcq_mul_mat_vec_rows;

    auto const & create_type = [&](ggml_type type, const std::string & name, uint32_t qk) {
        const uint32_t rate = 8*ggml_type_size(type)/qk;

        auto const & create_one = [&](vk_pipeline & pipeline, const std::string & what, const shader & s,
                                      uint32_t n_buffers, uint32_t push_constants, uint32_t per_workgroup,
                                      std::array<uint32_t, 3> constants = {}, uint32_t subgroup = 0) {
            create(device, pipeline, (what + "_" + name).c_str(), s.len, s.data, "main", n_buffers, push_constants,
                   { per_workgroup, 1, 1 }, { constants[0], constants[1], constants[2], rate, qk }, 1,
                   false, subgroup > 0, subgroup);
        };

        for (uint32_t w = 0; w < DMMV_WG_SIZE_COUNT; ++w) {
            const bool     large     = w == DMMV_WG_SIZE_LARGE;
            const uint32_t size      = large ? 4*subgroup_size : subgroup_size;
            const uint32_t subgroup  = use_subgroups ? subgroup_size : 0;
            const uint32_t reduction = !use_subgroups ? SHADER_REDUCTION_MODE_SHMEM :
                                       large ? SHADER_REDUCTION_MODE_HYBRID : SHADER_REDUCTION_MODE_SUBGROUP;

            for (uint32_t i = 0; i < mul_mat_vec_max_cols; ++i) {
                create_one(device->pipeline_dequant_mul_mat_vec_f32_f32[w][type][i], "mul_mat_vec_f32",
                    mul_mat_vec_f32[reduction], 5, sizeof(vk_mat_vec_push_constants), rows,
                    { size, rows, i + 1 }, subgroup);
                create_one(device->pipeline_dequant_mul_mat_vec_f16_f32[w][type][i], "mul_mat_vec_f16",
                    mul_mat_vec_f16[reduction], 5, sizeof(vk_mat_vec_push_constants), rows,
                    { size, rows, i + 1 }, subgroup);
            }
            create_one(device->pipeline_dequant_mul_mat_vec_id_f32[w][type], "mul_mat_vec_id",
                mul_mat_vec_id[reduction], 6, sizeof(vk_mat_vec_id_push_constants), rows, { size, rows, 1 }, subgroup);
        }

        create_one(device->pipeline_dequant[type], "dequant",
            { dequant_tcq_len, dequant_tcq_data }, 2, 5*sizeof(uint32_t), tcq_dequant_weights);
        create_one(device->pipeline_get_rows[type], "get_rows",
            { get_rows_tcq_f16_len, get_rows_tcq_f16_data }, 3, sizeof(vk_op_binary_push_constants), 32*32);
        create_one(device->pipeline_get_rows_f32[type], "get_rows_f32",
            { get_rows_tcq_f32_len, get_rows_tcq_f32_data }, 3, sizeof(vk_op_binary_push_constants), 32*32);
        create_one(device->pipeline_cpy_quant_f32[type], "cpy_f32",
            { cpy_tcq_f32_len, cpy_tcq_f32_data }, 2, sizeof(vk_op_unary_push_constants), qk);
        create_one(device->pipeline_cpy_tcq_f16[type], "cpy_f16",
            { cpy_tcq_f16_len, cpy_tcq_f16_data }, 2, sizeof(vk_op_unary_push_constants), qk);
    };

#define TCQ_CREATE(name, NAME, qk) create_type(GGML_TYPE_##NAME, #name, qk);
    TCQ_FOR_EACH_TYPE(TCQ_CREATE)
#undef TCQ_CREATE
}

// null if there is no such copy
static vk_pipeline ggml_vk_get_tcq_cpy_pipeline(const vk_device & device, ggml_type from, ggml_type to) {
    switch (from) {
        TCQ_TYPE_CASES
            return to == GGML_TYPE_F32 ? device->pipeline_cpy_quant_f32[from] :
                   to == GGML_TYPE_F16 ? device->pipeline_cpy_tcq_f16[from]   : nullptr;
        default:
            return nullptr;
    }
}

// rows become rows: a block's weights lie side by side in dst
static bool ggml_vk_supports_tcq_cpy(const vk_device & device, const ggml_tensor * op) {
    const ggml_tensor * src = op->src[0];
    return ggml_vk_get_tcq_cpy_pipeline(device, src->type, op->type) != nullptr && ggml_are_same_shape(src, op) &&
           src->nb[0] == ggml_type_size(src->type) && op->nb[0] == ggml_type_size(op->type);
}

// products of many columns take a copy of the matrix in half precision, in one buffer and by one dispatch
static bool ggml_vk_supports_tcq_mul_mat(const vk_device & device, const ggml_tensor * op) {
    const auto &   limits = device->properties.limits;
    const uint64_t n      = ggml_nelements(op->src[0]);
    return n*sizeof(ggml_fp16_t) <= std::min<uint64_t>(limits.maxStorageBufferRange, device->max_buffer_size) &&
           n <= (uint64_t) limits.maxComputeWorkGroupCount[0]*tcq_dequant_weights;
}
