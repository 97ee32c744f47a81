// TCQ in vulkan-shaders-gen: one shader for each operation, input and way to add up, whatever the type.

#pragma once

static void tcq_shaders() {
    const std::map<std::string, std::string> reductions = {
        {"", ""}, {"_subgroup", "USE_SUBGROUP_ADD"}, {"_subgroup_no_shmem", "USE_SUBGROUP_ADD_NO_SHMEM"},
    };
    std::map<std::string, std::string> f32 = {{"FLOAT_TYPE", "float"}, {"FLOAT_TYPEV2", "vec2"}, {"D_TYPE", "float"},
                                              {"B_TYPE", "float"}, {"B_TYPEV4", "vec4"}};
    std::map<std::string, std::string> f16 = merge_maps({{"B_TYPE", "float16_t"}, {"B_TYPEV4", "f16vec4"}}, f32);

    for (const auto & [suffix, define] : reductions) {
        std::map<std::string, std::string> reduction;
        if (!define.empty()) {
            reduction[define] = "1";
        }
        string_to_spv("mul_mat_vec_tcq_f32_f32"    + suffix, "mul_mat_vec_tcq.comp", merge_maps(f32, reduction));
        string_to_spv("mul_mat_vec_tcq_f16_f32"    + suffix, "mul_mat_vec_tcq.comp", merge_maps(f16, reduction));
        reduction["MUL_MAT_ID"] = "1";
        string_to_spv("mul_mat_vec_id_tcq_f32_f32" + suffix, "mul_mat_vec_tcq.comp", merge_maps(f32, reduction));
    }

    string_to_spv("dequant_tcq", "dequant_tcq.comp", {});
    for (const auto & [suffix, type] : std::map<std::string, std::string>{{"_f32", "float"}, {"_f16", "float16_t"}}) {
        string_to_spv("get_rows_tcq" + suffix, "get_rows_tcq.comp", {{"B_TYPE", "int"}, {"D_TYPE", type}});
        string_to_spv("cpy_tcq"      + suffix, "copy_tcq.comp",     {{"D_TYPE", type}});
    }
}
