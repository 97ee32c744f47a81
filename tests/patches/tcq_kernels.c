// Checks every TCQ kernel that this CPU runs against integer sums from elsewhere: test_tcq_kernels.py writes the cases
// with NumPy and reads the names of the kernels from the output. Exit status 1 and a line for every mismatch.
//
// A case, little-endian: int32 type; 16 blocks (rows); int8 q[16][block_size] (columns); int32 sums[16][16] (row, column).

#include "tcq-kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ggml-cpu's, for CPUs without half precision: the only number here is 1.0
#define FP16_ONE 0x3c00
float ggml_table_f32_f16[1 << 16] = { [FP16_ONE] = 1.0f };

static void * aligned(size_t size) {
    return aligned_alloc(64, (size + 63)/64*64);
}

static void check_vec_dot(const tcq_kernels * k, const tcq_format * f, const uint8_t * blocks, const int8_t * q, float got[16][16]) {
    const int packing = f->block_size == QK_TCQ_64;

    for (int c = 0; c < 16; ++c) {
        block_q8_K y;
        block_q8_0 y_64[2];
        if (packing == 0) {
            y.d = 1.0f;
            memcpy(y.qs, q + c*QK_TCQ, QK_TCQ);
            for (int i = 0; i < 16; ++i) {
                y.bsums[i] = 0;
                for (int j = 0; j < 16; ++j) {
                    y.bsums[i] += y.qs[16*i + j];
                }
            }
        } else {
            for (int i = 0; i < 2; ++i) {
                y_64[i].d = FP16_ONE;
                memcpy(y_64[i].qs, q + c*QK_TCQ_64 + 32*i, 32);
            }
        }
        for (int r = 0; r < 16; ++r) {
            k->vec_dot[packing][f->rate - 1](f->block_size, &got[r][c], 0, blocks + r*f->type_size, 0,
                                             packing == 0 ? (const void *) &y : (const void *) y_64, 0, 1);
        }
    }
}

// groups: NULL, or the blocks repacked
static void check_multiply(const tcq_kernels * k, const tcq_format * f, const uint8_t * blocks, const uint8_t * groups,
                           const int8_t * q, float got[16][16]) {
    const int n = f->block_size;

    tcq_panel_block * panel = aligned(sizeof(tcq_panel_block) + n*TCQ_PANEL);
    for (int c = 0; c < TCQ_PANEL; ++c) {
        panel->d   [c] = 1.0f;
        panel->bias[c] = 0;
        for (int i = 0; i < n; ++i) {
            const int at = groups ? tcq_group_position(i) : i;
            panel->q[4*(TCQ_PANEL*(at/4) + c) + at % 4] = q[c*n + i];
            panel->bias[c] -= TCQ_BIAS*q[c*n + i];
        }
    }

    float     d[TCQ_TILE];
    tcq_slots slots[TCQ_TILE];
    tcq_tile  tile = { n, 1, aligned((size_t) n*TCQ_TILE), d, slots };
    for (int r = 0; r < TCQ_TILE; ++r) {
        if (groups == NULL) {
            tcq_unpack_row(k, f, blocks + r*f->type_size, r, &tile);
        } else if (r % TCQ_GROUP == 0) {
            tcq_unpack_group(k, f, groups + r/TCQ_GROUP*tcq_group_block_size(f->rate), r, &tile);
        }
    }
    k->multiply(&tile, panel, got);
    free(tile.levels);
    free(panel);
}

static void check_dot_rows(const tcq_kernels * k, const tcq_format * f, const uint8_t * blocks, const int8_t * q, float got[16][16]) {
    const int n = f->block_size;

    for (int c = 0; c < 16; ++c) {
        float   d    = 1.0f;
        int32_t bias = 0;
        int8_t  y[QK_TCQ];
        memcpy(y, q + c*n, n);
        for (int i = 0; i < n; ++i) {
            bias -= TCQ_BIAS*y[i];
        }
        const tcq_column column = { 1, y, &d, &bias };
        for (int r = 0; r < 16; r += TCQ_DOT_ROWS) {
            const uint8_t * rows[TCQ_DOT_ROWS];
            float s[TCQ_DOT_ROWS];
            for (int i = 0; i < TCQ_DOT_ROWS; ++i) {
                rows[i] = blocks + (r + i)*f->type_size;
            }
            k->dot_rows[n == QK_TCQ_64][f->rate - 1](rows, &column, s);
            for (int i = 0; i < TCQ_DOT_ROWS; ++i) {
                got[r + i][c] = s[i];
            }
        }
    }
}

// rows of two blocks, row r and row 15 - r of the case; the column is zero at the other block than `block`
static void check_dot_groups(const tcq_kernels * k, const tcq_format * f, const uint8_t * blocks, int block, const int8_t * q,
                            float got[16][16]) {
    const size_t n = f->type_size, size = tcq_group_block_size(f->rate);

    uint8_t * rows   = malloc(16*2*n);
    uint8_t * groups = malloc(2*2*size);
    for (int r = 0; r < 16; ++r) {
        memcpy(rows + (2*r + 0)*n, blocks + r*n,        n);
        memcpy(rows + (2*r + 1)*n, blocks + (15 - r)*n, n);
    }
    tcq_repack(f, 16, 2, rows, groups);

    for (int c = 0; c < 16; ++c) {
        float   d   [2] = { 1.0f, 1.0f };
        int32_t bias[2] = { 0, 0 };
        int8_t  y   [2*QK_TCQ] = { 0 };
        tcq_order_for_group(q + c*QK_TCQ, y + QK_TCQ*block);
        for (int i = 0; i < QK_TCQ; ++i) {
            bias[block] -= TCQ_BIAS*q[c*QK_TCQ + i];
        }
        const tcq_column column = { 2, y, d, bias };
        float s[16];
        k->dot_groups[f->rate - 1](groups, 2, &column, s);
        for (int r = 0; r < 16; ++r) {
            got[block == 0 ? r : 15 - r][c] = s[r];
        }
    }
    free(rows);
    free(groups);
}

static int compare(const tcq_kernels * k, const char * what, const tcq_format * f, const uint8_t * blocks,
                   const int32_t sums[16][16], float got[16][16]) {
    int bad = 0;
    for (int r = 0; r < 16; ++r) {
        for (int c = 0; c < 16; ++c) {
            // the scales are powers of two and the sums below 2^24: exact
            const float want = tcq_block_scale(f, blocks + r*f->type_size)*(float) sums[r][c];
            if (got[r][c] != want && bad++ == 0) {
                printf("%s %s rate %d, blocks of %d: row %d, column %d: %g, not %g\n",
                       k->name, what, f->rate, f->block_size, r, c, got[r][c], want);
            }
        }
    }
    return bad;
}

int main(int argc, char ** argv) {
    FILE * file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: %s CASES\n", argv[0]);
        return 2;
    }

    const tcq_kernels * list[TCQ_MAX_KERNELS];
    const int n_kernels = ggml_tcq_cpu_kernels(list);
    int n_cases = 0, bad = 0;

    int32_t type;
    while (fread(&type, sizeof(type), 1, file) == 1) {
        const tcq_format * f = tcq_get_format((enum ggml_type) type);

        // exact sizes on the heap: tools that look for reads out of bounds can see them
        const size_t n_blocks = 16*f->type_size, n_q = 16*f->block_size;
        uint8_t * blocks = malloc(n_blocks);
        int8_t  * q      = malloc(n_q);
        int32_t   sums[16][16];
        if (fread(blocks, 1, n_blocks, file) != n_blocks || fread(q, 1, n_q, file) != n_q || fread(sums, 1, sizeof(sums), file) != sizeof(sums)) {
            fprintf(stderr, "%s ends within a case\n", argv[1]);
            return 2;
        }
        for (int i = 0; i < n_kernels; ++i) {
            float got[16][16];
            check_vec_dot(list[i], f, blocks, q, got);
            bad += compare(list[i], "vec_dot", f, blocks, sums, got);
            if (list[i]->dot_rows[0][0]) {
                check_dot_rows(list[i], f, blocks, q, got);
                bad += compare(list[i], "dot_rows", f, blocks, sums, got);
            }
            if (list[i]->multiply) {
                check_multiply(list[i], f, blocks, NULL, q, got);
                bad += compare(list[i], "multiply", f, blocks, sums, got);
            }
            if (list[i]->dot_groups[0] && f->block_size == QK_TCQ) {
                for (int block = 0; block < 2; ++block) {
                    check_dot_groups(list[i], f, blocks, block, q, got);
                    bad += compare(list[i], "dot_groups", f, blocks, sums, got);
                }
                uint8_t * groups = malloc(2*tcq_group_block_size(f->rate));
                tcq_repack(f, 16, 1, blocks, groups);
                check_multiply(list[i], f, blocks, groups, q, got);
                bad += compare(list[i], "multiply of groups", f, blocks, sums, got);
                free(groups);
            }
        }
        free(blocks);
        free(q);
        ++n_cases;
    }
    fclose(file);

    printf("%d cases:", n_cases);
    for (int i = 0; i < n_kernels; ++i) {
        printf(" %s", list[i]->name);
    }
    printf("\n");
    return bad || n_cases == 0;
}
