// TCQ matrix products with several columns: decode every weight once, multiply it with 16 columns at a time.

#pragma once

#include "ggml.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

// bytes of work buffer that ggml_compute_forward_mul_mat_tcq wants; 0 where it does not apply
size_t ggml_tcq_mul_mat_wsize(int n_tasks, const struct ggml_tensor * dst);

// true if the product was computed here; false leaves it to vec_dot (other types, few columns, no kernel)
bool ggml_compute_forward_mul_mat_tcq(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
