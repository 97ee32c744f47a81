// TCQ matrix products with several columns. The columns are quantized once, 16 side by side (a panel), one scale to a
// block of weights; then every thread takes tiles of 16 rows, decodes them to a byte a weight and multiplies them with all
// panels. A block's two scales meet once for 256 (or 64) products, its slots are added to the integer sums.

#include "tcq-matmul.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "tcq-kernels.h"

#include <math.h>
#include <string.h>

// with fewer columns vec_dot is as fast
#define TCQ_MIN_COLUMNS 5

// rows decoded together: a column panel is read once for all of them
#define TCQ_MAX_TILES   4
#define TCQ_TILES_BYTES (256*1024)

typedef struct {
    const tcq_kernels * kernels;
    const tcq_format  * format;
    int64_t n_columns, n_panels, n_blocks;
    size_t  panel_size; // bytes
    size_t  tile_size;  // bytes of one decoded tile: levels, scales, slots
    int     n_tiles;    // tiles that a thread decodes at a time
} tcq_plan;

static size_t tcq_panel_block_size(const tcq_format * f) {
    return sizeof(tcq_panel_block) + (size_t) f->block_size*TCQ_PANEL;
}

static bool tcq_make_plan(const struct ggml_tensor * dst, tcq_plan * plan) {
    const struct ggml_tensor * src0 = dst->src[0];
    const struct ggml_tensor * src1 = dst->src[1];

    const tcq_format * f = tcq_get_format(src0->type);
    if (f == NULL || src0->ne[2]*src0->ne[3] != 1 || src1->type != GGML_TYPE_F32 || src1->nb[0] != sizeof(float)) {
        return false;
    }
    plan->format    = f;
    plan->kernels   = tcq_kernels_in_use();
    plan->n_columns = src1->ne[1]*src1->ne[2]*src1->ne[3];
    if (plan->kernels->multiply == NULL || plan->n_columns < TCQ_MIN_COLUMNS) {
        return false;
    }
    plan->n_panels   = (plan->n_columns + TCQ_PANEL - 1)/TCQ_PANEL;
    plan->n_blocks   = src0->ne[0]/f->block_size;
    plan->panel_size = plan->n_blocks*tcq_panel_block_size(f);
    plan->tile_size  = plan->n_blocks*TCQ_TILE*(f->block_size + sizeof(float) + sizeof(tcq_slots));
    plan->n_tiles    = MAX(1, MIN(TCQ_MAX_TILES, (int) (TCQ_TILES_BYTES/plan->tile_size)));
    return true;
}

size_t ggml_tcq_mul_mat_wsize(int n_tasks, const struct ggml_tensor * dst) {
    tcq_plan plan;
    if (!tcq_make_plan(dst, &plan)) {
        return 0;
    }
    return 64 + plan.n_panels*plan.panel_size + (size_t) n_tasks*plan.n_tiles*plan.tile_size;
}

// one block of one column into its panel; x == NULL is a column that pads the last panel
static void tcq_pack_block(const tcq_format * f, const float * x, int column, tcq_panel_block * out) {
    const int n = f->block_size;
    int8_t q[QK_TCQ];

    float d   = 0.0f;
    int   sum = 0;
    memset(q, 0, n);

    if (x != NULL) {
        // the largest magnitude by its bits: integer comparisons vectorize
        uint32_t max_bits = 0;
        for (int i = 0; i < n; ++i) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof(bits));
            bits &= 0x7fffffff;
            max_bits = bits > max_bits ? bits : max_bits;
        }
        float max;
        memcpy(&max, &max_bits, sizeof(max));

        d = max/127.0f;
        const float id = max > 0.0f ? 127.0f/max : 0.0f;
        for (int i = 0; i < n; ++i) {
            // adding 1.5*2^23 rounds to nearest and leaves the integer in the low bits
            const float v = x[i]*id + 12582912.0f;
            int32_t bits;
            memcpy(&bits, &v, sizeof(bits));
            q[i] = (int8_t) bits;
            sum += (int8_t) bits;
        }
    }

    out->d   [column] = d;
    out->bias[column] = -TCQ_BIAS*sum;
    for (int g = 0; g < n/4; ++g) {
        memcpy(out->q + 4*(TCQ_PANEL*g + column), q + 4*g, 4);
    }
}

static void tcq_pack_panels(const tcq_plan * plan, const struct ggml_tensor * src1, char * panels, int ith, int nth) {
    const tcq_format * f = plan->format;

    // threads share every panel by blocks: few columns keep all of them busy
    for (int64_t p = 0; p < plan->n_panels; ++p) {
        for (int64_t b = ith; b < plan->n_blocks; b += nth) {
            tcq_panel_block * out = (tcq_panel_block *) (panels + p*plan->panel_size + b*tcq_panel_block_size(f));
            for (int c = 0; c < TCQ_PANEL; ++c) {
                const int64_t j   = p*TCQ_PANEL + c;
                const int64_t i11 = j % src1->ne[1], i12 = j/src1->ne[1] % src1->ne[2], i13 = j/(src1->ne[1]*src1->ne[2]);
                const float * x   = (const float *) ((const char *) src1->data + i11*src1->nb[1] + i12*src1->nb[2] + i13*src1->nb[3]);
                tcq_pack_block(f, j < plan->n_columns ? x + b*f->block_size : NULL, c, out);
            }
        }
    }
}

static tcq_tile tcq_tile_at(const tcq_plan * plan, char * p) {
    const size_t n = plan->n_blocks*TCQ_TILE;

    tcq_tile tile;
    tile.block_size = plan->format->block_size;
    tile.n_blocks   = (int) plan->n_blocks;
    tile.levels     = (uint8_t *) p;
    tile.d          = (float *) (p + n*plan->format->block_size);
    tile.slots      = (tcq_slots *) (tile.d + n);
    return tile;
}

// n rows, the last of them repeated up to TCQ_TILE
static void tcq_decode_tile(const tcq_plan * plan, const uint8_t * rows, size_t row_size, int n, tcq_tile * tile) {
    for (int r = 0; r < TCQ_TILE; ++r) {
        tcq_unpack_row(plan->kernels, plan->format, rows + MIN(r, n - 1)*row_size, r, tile);
    }
}

bool ggml_compute_forward_mul_mat_tcq(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    tcq_plan plan;
    if (params->use_ref || !tcq_make_plan(dst, &plan)) {
        return false;
    }
    const struct ggml_tensor * src0 = dst->src[0];
    const struct ggml_tensor * src1 = dst->src[1];

    GGML_ASSERT(dst->nb[0] == sizeof(float));

    char * panels = (char *) GGML_PAD((uintptr_t) params->wdata, 64);
    char * work   = panels + plan.n_panels*plan.panel_size + (size_t) params->ith*plan.n_tiles*plan.tile_size;

    tcq_pack_panels(&plan, src1, panels, params->ith, params->nth);
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    const int64_t n_rows = src0->ne[1];
    const int64_t step   = plan.n_tiles*TCQ_TILE;

    for (int64_t chunk = params->ith; chunk*step < n_rows; chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t first = chunk*step;
        const int     n     = (int) MIN(step, n_rows - first);

        tcq_tile tiles[TCQ_MAX_TILES];
        for (int t = 0; t*TCQ_TILE < n; ++t) {
            tiles[t] = tcq_tile_at(&plan, work + t*plan.tile_size);
            tcq_decode_tile(&plan, (const uint8_t *) src0->data + (first + t*TCQ_TILE)*src0->nb[1], src0->nb[1],
                            MIN(TCQ_TILE, n - t*TCQ_TILE), &tiles[t]);
        }
        for (int64_t p = 0; p < plan.n_panels; ++p) {
            for (int t = 0; t*TCQ_TILE < n; ++t) {
                float c[TCQ_TILE][TCQ_PANEL];
                plan.kernels->multiply(&tiles[t], panels + p*plan.panel_size, c);

                for (int j = 0; j < TCQ_PANEL && p*TCQ_PANEL + j < plan.n_columns; ++j) {
                    const int64_t i   = p*TCQ_PANEL + j;
                    const int64_t i11 = i % dst->ne[1], i12 = i/dst->ne[1] % dst->ne[2], i13 = i/(dst->ne[1]*dst->ne[2]);
                    float * out = (float *) ((char *) dst->data + i11*dst->nb[1] + i12*dst->nb[2] + i13*dst->nb[3]);
                    for (int r = 0; r < MIN(TCQ_TILE, n - t*TCQ_TILE); ++r) {
                        out[first + t*TCQ_TILE + r] = c[r][j];
                    }
                }
            }
        }
    }
    return true;
}
