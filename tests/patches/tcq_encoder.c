// Encodes the cases on stdin with every instruction set that this CPU has; fails if their bytes differ, else writes them.
// A case: int32 type, rows, columns, then f32 rows, importance [columns], block_weights [columns],
// section_weights [columns/64, 128], propagation [columns, columns]; encoded without and with feedback.

#include "ggml-tcq-trellis.h"
#include "ggml_stand_ins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float * read_floats(size_t n) {
    float * x = malloc(n*sizeof(float));
    if (fread(x, sizeof(float), n, stdin) != n) {
        fprintf(stderr, "short input\n");
        exit(1);
    }
    return x;
}

int main(void) {
    int32_t head[3];
    while (fread(head, sizeof(head), 1, stdin) == 1) {
        const enum ggml_type type = (enum ggml_type) head[0];
        const int64_t n = head[1], k = head[2];

        float * rows       = read_floats(n*k);
        float * importance = read_floats(k);
        tcq_feedback feedback = { read_floats(k), read_floats(k/64*128), read_floats(k*k), 64, 64 };

        const tcq_format * f = tcq_get_format(type);
        const size_t size = n*k/f->block_size*f->type_size;
        uint8_t * first = malloc(2*size);
        uint8_t * out   = malloc(2*size);
        for (int cap = 0; cap <= 2; ++cap) {
            const int simd = tcq_trellis_cap_simd(cap);
            quantize_tcq         (type, rows, cap == 0 ? first : out, n, k, importance);
            quantize_tcq_feedback(type, rows, (cap == 0 ? first : out) + size, n, k, &feedback);
            if (cap > 0 && memcmp(first, out, 2*size) != 0) {
                fprintf(stderr, "type %d: instruction set %d writes other bytes\n", type, simd);
                return 1;
            }
            fprintf(stderr, "%d ", simd);
        }
        fwrite(first, 1, 2*size, stdout);
    }
    return 0;
}
