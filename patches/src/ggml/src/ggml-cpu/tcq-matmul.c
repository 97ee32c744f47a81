// TCQ matrix products. Columns are quantized with one scale per block of weights, so a block's two scales are multiplied
// once for 256 (or 64) products, and its slots are added to the integer sums.
//
// Many columns are quantized 16 side by side (a panel); then every thread takes tiles of 16 rows, decodes them to one byte
// per weight and multiplies them with all panels. Few columns are multiplied one by one with four rows at a time, or with
// a group of eight repacked ones (tcq-repack.h), which are decoded in registers.

#include "tcq-matmul.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "tcq-kernels.h"

#include <math.h>
#include <string.h>

// with fewer columns decoding in registers is as fast
#define TCQ_MIN_COLUMNS 5

// the most rows that a thread takes at a time when there are few columns
#define TCQ_MAX_ROWS 256

// how far ahead rows are prefetched, or a little further
#define TCQ_PREFETCH_BYTES 8192

// the same for groups, whose bytes lie one behind the other
#define TCQ_PREFETCH_GROUP_BYTES 4096

// rows decoded together: a column panel is read once for all of them
#define TCQ_MAX_TILES   4
#define TCQ_TILES_BYTES (256*1024)

typedef struct {
    const tcq_kernels * kernels;
    const tcq_format  * format;
    bool    repacked;   // src0 is, and columns are in a group's order
    int64_t n_blocks;   // of a row
    size_t  row_size;   // bytes; if repacked, an eighth of a group's
    size_t  panel_size; // bytes
    size_t  tile_size;  // bytes of one decoded tile: levels, scales, slots
    int     n_tiles;    // tiles that a thread decodes at a time
    tcq_dot_rows_t   dot_rows;
    tcq_dot_groups_t dot_groups;
} tcq_plan;

// one matrix and its columns: all of src1, or what is routed to one expert
typedef struct {
    const uint8_t * weights;
    const int32_t * rows; // pairs (slot, token), or NULL
    int64_t         n_columns;
    char          * panels; // or, in the same space, columns
} tcq_product;

static int64_t tcq_n_panels(int64_t n_columns) {
    return (n_columns + TCQ_PANEL - 1)/TCQ_PANEL;
}

static size_t tcq_panel_block_size(const tcq_format * f) {
    return sizeof(tcq_panel_block) + (size_t) f->block_size*TCQ_PANEL;
}

static bool tcq_make_plan(const struct ggml_tensor * dst, tcq_plan * plan) {
    const struct ggml_tensor * src0 = dst->src[0];
    const struct ggml_tensor * src1 = dst->src[1];

    const tcq_format * f = tcq_get_format(src0->type);
    if (f == NULL || src1->type != GGML_TYPE_F32 || src1->nb[0] != sizeof(float)) {
        return false;
    }
    // every matrix of MUL_MAT_ID is an expert; MUL_MAT must have one
    if (dst->op == GGML_OP_MUL_MAT && src0->ne[2]*src0->ne[3] != 1) {
        return false;
    }
    plan->format     = f;
    plan->kernels    = tcq_kernels_in_use();
    plan->repacked   = ggml_tcq_is_repacked(src0);
    plan->n_blocks   = src0->ne[0]/f->block_size;
    plan->row_size   = plan->repacked ? plan->n_blocks*tcq_group_block_size(f->rate)/TCQ_GROUP : src0->nb[1];
    plan->panel_size = plan->n_blocks*tcq_panel_block_size(f);
    plan->tile_size  = plan->n_blocks*TCQ_TILE*(f->block_size + sizeof(float) + sizeof(tcq_slots));
    plan->n_tiles    = MAX(1, MIN(TCQ_MAX_TILES, (int) (TCQ_TILES_BYTES/plan->tile_size)));
    plan->dot_rows   = plan->kernels->dot_rows[f->block_size == QK_TCQ_64][f->rate - 1];
    plan->dot_groups = plan->kernels->dot_groups[f->rate - 1];
    return plan->kernels->multiply != NULL;
}

size_t ggml_tcq_mul_mat_wsize(int n_tasks, const struct ggml_tensor * dst) {
    tcq_plan plan;
    if (!tcq_make_plan(dst, &plan)) {
        return 0;
    }
    const int64_t n_columns = ggml_nrows(dst);
    const int64_t n_panels  = dst->op == GGML_OP_MUL_MAT ? tcq_n_panels(n_columns) : n_columns/TCQ_PANEL + dst->src[0]->ne[2];
    return 64 + n_panels*plan.panel_size + (size_t) n_tasks*plan.n_tiles*plan.tile_size;
}

// n (a multiple of 4, at most QK_TCQ) values to int8; returns their sum
static int tcq_quantize_values(int n, const float * x, float * d, int8_t * q) {
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

    *d = max/127.0f;
    const float id = max > 0.0f ? 127.0f/max : 0.0f;

    int sum = 0;
    for (int i = 0; i < n; ++i) {
        // adding 1.5*2^23 rounds to nearest and leaves the integer in the low bits
        const float v = x[i]*id + 12582912.0f;
        int32_t bits;
        memcpy(&bits, &v, sizeof(bits));
        q[i] = (int8_t) bits;
        sum += (int8_t) bits;
    }
    return sum;
}

// one block of a column to int8, in the order of the weights; returns the sum
static int tcq_quantize_block(const tcq_plan * plan, const float * x, float * d, int8_t * q) {
    if (!plan->repacked) {
        return tcq_quantize_values(plan->format->block_size, x, d, q);
    }
    int8_t values[QK_TCQ];
    const int sum = tcq_quantize_values(QK_TCQ, x, d, values);
    tcq_order_for_group(values, q);
    return sum;
}

// one block of one column into its panel; x == NULL is a column that pads the last panel
static void tcq_pack_block(const tcq_plan * plan, const float * x, int column, tcq_panel_block * out) {
    const int n = plan->format->block_size;
    int8_t q[QK_TCQ] = { 0 };

    float d   = 0.0f;
    int   sum = 0;
    if (x != NULL) {
        sum = tcq_quantize_block(plan, x, &d, q);
    }
    out->d   [column] = d;
    out->bias[column] = -TCQ_BIAS*sum;
    for (int g = 0; g < n/4; ++g) {
        memcpy(out->q + 4*(TCQ_PANEL*g + column), q + 4*g, 4);
    }
}

// where column j of the product comes from and goes to
static void tcq_locate_column(const tcq_product * product, const struct ggml_tensor * dst, int64_t j,
                              const char ** x, float ** y) {
    const struct ggml_tensor * src1 = dst->src[1];

    int64_t i1, i2, i3 = 0;
    if (product->rows) {
        i1 = product->rows[2*j + 0];
        i2 = product->rows[2*j + 1];
    } else {
        i1 = j % src1->ne[1];
        i2 = j/src1->ne[1] % src1->ne[2];
        i3 = j/(src1->ne[1]*src1->ne[2]);
    }
    // experts may share the input of their token
    *x = (const char *) src1->data + i1 % src1->ne[1]*src1->nb[1] + i2*src1->nb[2] + i3*src1->nb[3];
    *y = (float *) ((char *) dst->data + i1*dst->nb[1] + i2*dst->nb[2] + i3*dst->nb[3]);
}

static void tcq_pack_panels(const tcq_plan * plan, const tcq_product * product, const struct ggml_tensor * dst,
                            int ith, int nth) {
    const tcq_format * f = plan->format;

    for (int64_t j = 0; j < tcq_n_panels(product->n_columns)*TCQ_PANEL; ++j) {
        const char * x = NULL;
        float      * y;
        if (j < product->n_columns) {
            tcq_locate_column(product, dst, j, &x, &y);
        }
        // threads share every column by blocks, so that few columns keep all of them busy
        for (int64_t b = ith; b < plan->n_blocks; b += nth) {
            char * out = product->panels + j/TCQ_PANEL*plan->panel_size + b*tcq_panel_block_size(f);
            tcq_pack_block(plan, x ? (const float *) x + b*f->block_size : NULL, j % TCQ_PANEL, (tcq_panel_block *) out);
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

// n rows, the last of them, or the last group, repeated up to TCQ_TILE
static void tcq_decode_tile(const tcq_plan * plan, const uint8_t * rows, int n, tcq_tile * tile) {
    if (plan->repacked) {
        for (int r = 0; r < TCQ_TILE; r += TCQ_GROUP) {
            tcq_unpack_group(plan->kernels, plan->format, rows + MIN(r, n - TCQ_GROUP)*plan->row_size, r, tile);
        }
        return;
    }
    for (int r = 0; r < TCQ_TILE; ++r) {
        tcq_unpack_row(plan->kernels, plan->format, rows + MIN(r, n - 1)*plan->row_size, r, tile);
    }
}

// rows first.. of the product, as many as a thread decodes at a time
static void tcq_multiply_rows(const tcq_plan * plan, const tcq_product * product, struct ggml_tensor * dst,
                              int64_t first, char * work) {
    const int n = (int) MIN(plan->n_tiles*TCQ_TILE, dst->src[0]->ne[1] - first);

    tcq_tile tiles[TCQ_MAX_TILES];
    for (int t = 0; t*TCQ_TILE < n; ++t) {
        tiles[t] = tcq_tile_at(plan, work + t*plan->tile_size);
        tcq_decode_tile(plan, product->weights + (first + t*TCQ_TILE)*plan->row_size, MIN(TCQ_TILE, n - t*TCQ_TILE), &tiles[t]);
    }
    for (int64_t p = 0; p < tcq_n_panels(product->n_columns); ++p) {
        for (int t = 0; t*TCQ_TILE < n; ++t) {
            float c[TCQ_TILE][TCQ_PANEL];
            plan->kernels->multiply(&tiles[t], product->panels + p*plan->panel_size, c);

            for (int j = 0; j < TCQ_PANEL && p*TCQ_PANEL + j < product->n_columns; ++j) {
                const char * x;
                float      * y;
                tcq_locate_column(product, dst, p*TCQ_PANEL + j, &x, &y);
                for (int r = 0; r < MIN(TCQ_TILE, n - t*TCQ_TILE); ++r) {
                    y[first + t*TCQ_TILE + r] = c[r][j];
                }
            }
        }
    }
}

// few columns: all their q, then all their scales, then all their biases: the space that panels of them would take
static tcq_column tcq_column_at(const tcq_plan * plan, const tcq_product * product, int64_t j) {
    const size_t    n    = product->n_columns*plan->n_blocks;
    char          * d    = product->panels + n*plan->format->block_size;
    const ptrdiff_t rows = TCQ_DOT_ROWS*plan->n_blocks*plan->format->type_size;

    tcq_column column;
    column.n_blocks = (int) plan->n_blocks;
    column.q        = (int8_t  *) product->panels + j*plan->n_blocks*plan->format->block_size;
    column.d        = (float   *) d + j*plan->n_blocks;
    column.bias     = (int32_t *) (d + n*sizeof(float)) + j*plan->n_blocks;
    column.ahead    = plan->repacked ? TCQ_PREFETCH_GROUP_BYTES : (TCQ_PREFETCH_BYTES + rows - 1)/rows*rows;
    return column;
}

static void tcq_pack_columns(const tcq_plan * plan, const tcq_product * product, const struct ggml_tensor * dst,
                             int ith, int nth) {
    const int n = plan->format->block_size;

    for (int64_t j = 0; j < product->n_columns; ++j) {
        const char     * x;
        float          * y;
        const tcq_column column = tcq_column_at(plan, product, j);
        tcq_locate_column(product, dst, j, &x, &y);
        for (int64_t b = ith; b < plan->n_blocks; b += nth) {
            column.bias[b] = -TCQ_BIAS*tcq_quantize_block(plan, (const float *) x + b*n, &column.d[b], column.q + b*n);
        }
    }
}

// n rows of the product from first on, with every column
static void tcq_dot_all_rows(const tcq_plan * plan, const tcq_product * product, struct ggml_tensor * dst,
                             int64_t first, int64_t n) {
    const uint8_t * weights = product->weights + first*plan->row_size;

    for (int64_t j = 0; j < product->n_columns; ++j) {
        const tcq_column column = tcq_column_at(plan, product, j);
        const char * x;
        float      * y;
        tcq_locate_column(product, dst, j, &x, &y);

        if (plan->repacked) {
            plan->dot_groups(weights, (int) (n/TCQ_GROUP), &column, y + first);
            continue;
        }
        for (int64_t r0 = 0; r0 < n; r0 += TCQ_DOT_ROWS) {
            const int       n_rows = (int) MIN(TCQ_DOT_ROWS, n - r0);
            const uint8_t * rows[TCQ_DOT_ROWS];
            float           s   [TCQ_DOT_ROWS];
            for (int r = 0; r < TCQ_DOT_ROWS; ++r) {
                rows[r] = weights + (r0 + MIN(r, n_rows - 1))*plan->row_size;
            }
            plan->dot_rows(rows, &column, s);
            memcpy(y + first + r0, s, n_rows*sizeof(float));
        }
    }
}

static bool tcq_has_few_columns(int64_t n_columns, int64_t n_products) {
    return n_columns < TCQ_MIN_COLUMNS*n_products;
}

// nothing else can read repacked rows
static bool tcq_applies(const struct ggml_compute_params * params, const tcq_plan * plan, bool few) {
    return plan->repacked || !(params->use_ref || (few && plan->dot_rows == NULL));
}

// all products on all threads; work: the tiles of every thread
static void tcq_multiply_all(const struct ggml_compute_params * params, const tcq_plan * plan, struct ggml_tensor * dst,
                             const tcq_product * products, int64_t n_products, bool few, char * work) {
    GGML_ASSERT(dst->nb[0] == sizeof(float));

    const int ith = params->ith, nth = params->nth;

    for (int64_t i = 0; i < n_products; ++i) {
        if (few) {
            tcq_pack_columns(plan, &products[i], dst, ith, nth);
        } else {
            tcq_pack_panels(plan, &products[i], dst, ith, nth);
        }
    }
    if (ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, nth);
    }
    ggml_barrier(params->threadpool);

    const int64_t n_rows   = dst->src[0]->ne[1];
    const int64_t share    = GGML_PAD((n_rows + 4*nth - 1)/(4*nth), TCQ_GROUP); // no thread waits long for the last one
    const int64_t step     = few ? MIN(TCQ_MAX_ROWS, share) : plan->n_tiles*TCQ_TILE;
    const int64_t n_chunks = (n_rows + step - 1)/step; // of each product

    work += (size_t) ith*plan->n_tiles*plan->tile_size;
    for (int64_t i = ith; i < n_chunks*n_products; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const tcq_product * product = &products[i/n_chunks];
        const int64_t       first   = i % n_chunks*step;
        if (few) {
            tcq_dot_all_rows(plan, product, dst, first, MIN(step, n_rows - first));
        } else {
            tcq_multiply_rows(plan, product, dst, first, work);
        }
    }
}

bool ggml_compute_forward_mul_mat_tcq(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const int64_t n_columns = ggml_nrows(dst->src[1]);
    const bool    few       = tcq_has_few_columns(n_columns, 1);

    tcq_plan plan;
    if (!tcq_make_plan(dst, &plan) || !tcq_applies(params, &plan, few)) {
        return false;
    }
    char * panels = (char *) GGML_PAD((uintptr_t) params->wdata, 64);

    const tcq_product product = { (const uint8_t *) dst->src[0]->data, NULL, n_columns, panels };
    tcq_multiply_all(params, &plan, dst, &product, 1, few, panels + tcq_n_panels(n_columns)*plan.panel_size);
    return true;
}

bool ggml_compute_forward_mul_mat_id_tcq(const struct ggml_compute_params * params, struct ggml_tensor * dst,
                                         const int64_t * row_counts, const int32_t * rows, int64_t max_rows, char * work) {
    const struct ggml_tensor * src0 = dst->src[0];

    tcq_plan    plan;
    tcq_product products[TCQ_MAX_EXPERTS];
    if (src0->ne[2] > TCQ_MAX_EXPERTS || !tcq_make_plan(dst, &plan)) {
        return false;
    }
    int64_t n_products = 0, n_columns = 0;
    for (int64_t e = 0; e < src0->ne[2]; ++e) {
        if (row_counts[e] > 0) {
            const uint8_t * weights = (const uint8_t *) src0->data +
                                      e*(plan.repacked ? src0->ne[1]*plan.row_size : src0->nb[2]);
            products[n_products++] = (tcq_product) { weights, rows + 2*e*max_rows, row_counts[e], work };
            work      += tcq_n_panels(row_counts[e])*plan.panel_size;
            n_columns += row_counts[e];
        }
    }
    const bool few = tcq_has_few_columns(n_columns, n_products);
    if (!tcq_applies(params, &plan, few)) {
        return false;
    }
    tcq_multiply_all(params, &plan, dst, products, n_products, few, work);
    return true;
}
