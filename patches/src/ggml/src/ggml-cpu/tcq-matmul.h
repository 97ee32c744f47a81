// TCQ matrix products: with several columns, every weight is decoded once and multiplied with 16 columns at a time; rows
// that are repacked come here with one column, too.

#pragma once

#include "ggml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// what MUL_MAT_ID can have here; repacked tensors have no other way
#define TCQ_MAX_EXPERTS 1024

struct ggml_compute_params;

// bytes of work buffer that the functions below need for MUL_MAT or MUL_MAT_ID; 0 where they do not apply
size_t ggml_tcq_mul_mat_wsize(int n_tasks, const struct ggml_tensor * dst);

// true if the product was computed here, as repacked ones always are; false leaves it to vec_dot (other types, few columns,
// no kernel)
bool ggml_compute_forward_mul_mat_tcq(const struct ggml_compute_params * params, struct ggml_tensor * dst);

// the same for all experts of MUL_MAT_ID, after the routing. Expert e has row_counts[e] columns: pairs (slot, token) from
// rows + 2*e*max_rows on. work is 64-byte aligned and has ggml_tcq_mul_mat_wsize bytes.
bool ggml_compute_forward_mul_mat_id_tcq(const struct ggml_compute_params * params, struct ggml_tensor * dst,
                                         const int64_t * row_counts, const int32_t * rows, int64_t max_rows, char * work);

#ifdef __cplusplus
}
#endif
