// TCQ with error feedback: GPTQ / LDLQ with sections of the trellis as its blocks (arXiv:2210.17323, arXiv:2307.13304).
//
// Columns are processed in chain order. Scale, slots and seam of a block are found without feedback; then the path is
// decided section by section, looking some steps ahead, and later columns compensate for the error of each section. The
// caller factors the Hessian and prepares what depends on it alone (tcq_feedback).

#include "ggml-tcq-encode.h"
#include "ggml-impl.h"
#include "ggml-tcq-tables.h"

#include <stdlib.h>
#include <string.h>

#define TCQ_SLAB 16 // rows that share one pass over the propagation matrix

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define TCQ_X86
#endif

// the block of one row while its path is being decided
typedef struct {
    bool     zero;
    int      scale;
    int      seam;
    int      state;
    uint32_t slots;
    int16_t  offset[QK_TCQ]; // what the slots add, by time
    uint8_t  u [QK_TCQ];
    uint8_t  lo[QK_TCQ];
} tcq_pending;

// x[r][first .. end) -= sum over k of error[r][k]*p[k][first .. end); rows of p and x are `stride` apart
static inline void tcq_propagate(float * x, const float * error, const float * p, int64_t stride, int n_rows, int n_k,
                                 int64_t first, int64_t end) {
    enum { N = 16 };
    int64_t j = first;
    for (; j + N <= end; j += N) {
        for (int r = 0; r < n_rows; ++r) {
            float sum[N] = { 0 };
            for (int k = 0; k < n_k; ++k) {
                const float   e  = error[r*QK_TCQ + k];
                const float * pk = p + k*stride + j;
                for (int i = 0; i < N; ++i) {
                    sum[i] += e*pk[i];
                }
            }
            for (int i = 0; i < N; ++i) {
                x[r*stride + j + i] -= sum[i];
            }
        }
    }
    for (; j < end; ++j) {
        for (int r = 0; r < n_rows; ++r) {
            float sum = 0.0f;
            for (int k = 0; k < n_k; ++k) {
                sum += error[r*QK_TCQ + k]*p[k*stride + j];
            }
            x[r*stride + j] -= sum;
        }
    }
}

typedef void (*tcq_propagate_t)(float *, const float *, const float *, int64_t, int, int, int64_t, int64_t);

static void tcq_propagate_ref(float * x, const float * error, const float * p, int64_t stride, int n_rows, int n_k,
                              int64_t first, int64_t end) {
    tcq_propagate(x, error, p, stride, n_rows, n_k, first, end);
}

#ifdef TCQ_X86
__attribute__((target("avx2")))
static void tcq_propagate_avx2(float * x, const float * error, const float * p, int64_t stride, int n_rows, int n_k,
                               int64_t first, int64_t end) {
    tcq_propagate(x, error, p, stride, n_rows, n_k, first, end);
}
#endif

static tcq_propagate_t tcq_select_propagate(void) {
#ifdef TCQ_X86
    if (tcq_trellis_simd() >= 1) {
        return tcq_propagate_avx2;
    }
#endif
    return tcq_propagate_ref;
}

// scale, slots and seam without feedback; x [block_size] by time
static void tcq_begin_block(tcq_encoder * e, const float * x, const float * importance, tcq_pending * row) {
    const tcq_format * f = e->trellis.f;
    const int n = f->block_size;

    float natural[QK_TCQ], weight[QK_TCQ];
    for (int i = 0; i < n; ++i) {
        const int j = tcq_weight_at(n, i);
        natural[j] = x[i];
        weight [j] = importance[i];
    }
    row->zero = !tcq_encode_block(e, natural, weight);
    if (row->zero) {
        return;
    }
    row->scale = e->scale;
    row->seam  = tcq_state_after(e->u, n);
    row->state = row->seam;
    row->slots = e->slots;

    int16_t slots[QK_TCQ] = { 0 };
    tcq_add_slots(f, row->slots, slots);
    for (int i = 0; i < n; ++i) {
        row->offset[i] = slots[tcq_weight_at(n, i)];
    }
}

// decides the path at times [first, first + section) and writes the remaining error; x [block_size] by time
static void tcq_decide_section(tcq_trellis * t, const float * x, const float * w, int first, int section, int look_ahead,
                               tcq_pending * row, float * error) {
    const tcq_format * f = t->f;
    if (row->zero) {
        memcpy(error, x + first, section*sizeof(float));
        return;
    }
    const int   n      = first + section + look_ahead < f->block_size ? section + look_ahead : f->block_size - first;
    const bool  at_end = first + n == f->block_size;
    const float d      = f->scales[row->scale];

    float target[QK_TCQ];
    for (int i = 0; i < n; ++i) {
        target[i] = x[first + i]/d - row->offset[first + i];
    }
    t->set_targets(t, 0, target, w, n, tcq_cost_unit(f, w, n));

    unsigned window = row->state;
    row->state = tcq_trellis_search(t, 0, n, row->state, at_end ? row->seam : -1, section, row->u + first, row->lo + first);
    for (int i = 0; i < section; ++i) {
        window = (window << 1 | row->u[first + i]) & 0x1ff;
        const int level = f->levels[tcq_subset[window] | row->lo[first + i] << TCQ_N_PARITIES];
        error[i] = x[first + i] - d*(level + row->offset[first + i]);
    }
}

static void tcq_finish_block(tcq_encoder * e, const tcq_pending * row, uint8_t * block) {
    if (row->zero) {
        memset(block, 0, e->trellis.f->type_size);
        return;
    }
    e->scale = row->scale;
    e->slots = row->slots;
    memcpy(e->u,  row->u,  sizeof(row->u));
    memcpy(e->lo, row->lo, sizeof(row->lo));
    tcq_pack_block(e, block);
}

size_t quantize_tcq_feedback(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst,
                             int64_t nrows, int64_t n_per_row, const tcq_feedback * feedback) {
    const tcq_format * f = tcq_get_format(type);
    const int     n          = f->block_size;
    const int     section    = feedback->section;
    const int     look_ahead = feedback->look_ahead;
    const int64_t row_size   = n_per_row/n*f->type_size;
    const tcq_propagate_t propagate = tcq_select_propagate();

    tcq_encoder * e = ggml_aligned_malloc(sizeof(tcq_encoder));

    float       * x       = malloc(TCQ_SLAB*n_per_row*sizeof(float)); // columns in chain order
    float       * error   = malloc(TCQ_SLAB*QK_TCQ*sizeof(float));    // of one block
    tcq_pending * pending = malloc(TCQ_SLAB*sizeof(tcq_pending));
    GGML_ASSERT(e && x && error && pending);
    tcq_trellis_init(&e->trellis, f);

    for (int64_t slab = 0; slab < nrows; slab += TCQ_SLAB) {
        const int n_rows = (int) (nrows - slab < TCQ_SLAB ? nrows - slab : TCQ_SLAB);
        for (int r = 0; r < n_rows; ++r) {
            for (int64_t j = 0; j < n_per_row; ++j) {
                const int i = j % n;
                x[r*n_per_row + j] = src[(slab + r)*n_per_row + j - i + tcq_weight_at(n, i)];
            }
        }
        for (int64_t b = 0; b < n_per_row; b += n) {
            for (int r = 0; r < n_rows; ++r) {
                tcq_begin_block(e, x + r*n_per_row + b, feedback->block_weights + b, &pending[r]);
            }
            for (int i = 0; i < n; i += section) {
                const float * w = feedback->section_weights + (b + i)/section*(section + look_ahead);
                for (int r = 0; r < n_rows; ++r) {
                    tcq_decide_section(&e->trellis, x + r*n_per_row + b, w, i, section, look_ahead,
                                       &pending[r], error + r*QK_TCQ + i);
                }
                propagate(x, error + i, feedback->propagation + (b + i)*n_per_row, n_per_row, n_rows, section,
                          b + i + section, b + n);
            }
            // later blocks get the errors of the whole block at once
            propagate(x, error, feedback->propagation + b*n_per_row, n_per_row, n_rows, n, b + n, n_per_row);
            for (int r = 0; r < n_rows; ++r) {
                tcq_finish_block(e, &pending[r], (uint8_t *) dst + (slab + r)*row_size + b/n*f->type_size);
            }
        }
    }
    free(pending);
    free(error);
    free(x);
    ggml_aligned_free(e, sizeof(tcq_encoder));
    return nrows*row_size;
}
