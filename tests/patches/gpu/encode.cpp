// The GPU's encoder as C++ against the CPU's. Reads cases on stdin: int32 type, rows, columns, then f32 rows and importance
// [columns]; encodes each with and without importance. Exit status 1: bytes differ.

#include "ggml-cuda/tcq-encode.h"
#include "../ggml_stand_ins.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

int main() {
    int32_t head[3];
    int     n_cases = 0;
    while (fread(head, sizeof(head), 1, stdin) == 1) {
        const ggml_type type = (ggml_type) head[0];
        const size_t n = head[1], k = head[2];
        std::vector<float> rows(n*k), importance(k);
        if (fread(rows.data(), sizeof(float), n*k, stdin) != n*k || fread(importance.data(), sizeof(float), k, stdin) != k) {
            fprintf(stderr, "short input\n");
            return 1;
        }

        const tcq_format * f = tcq_get_format(type);
        const size_t n_blocks = n*k/f->block_size;
        auto tables = std::make_unique<tcq_encoder_tables>();
        tcq_get_encoder_tables(f, tables.get());

        auto e = std::make_unique<tcq_device::tcq_encoder>();
        e->t = tables.get();

        for (const float * weights : { (const float *) nullptr, (const float *) importance.data() }) {
            std::vector<uint8_t> cpu(n_blocks*f->type_size), gpu(n_blocks*f->type_size, 0xff);
            quantize_tcq(type, rows.data(), cpu.data(), n, k, weights);
            for (size_t ib = 0; ib < n_blocks; ++ib) {
                const size_t column = ib*f->block_size % k;
                tcq_device::tcq_write_block(e.get(), rows.data() + ib*f->block_size, weights ? weights + column : nullptr, gpu.data() + ib*f->type_size);
            }
            for (size_t ib = 0; ib < n_blocks; ++ib) {
                if (memcmp(&cpu[ib*f->type_size], &gpu[ib*f->type_size], f->type_size) != 0) {
                    fprintf(stderr, "type %d, block %zu, %s importance: other bytes\n", type, ib, weights ? "with" : "without");
                    return 1;
                }
            }
            ++n_cases;
        }
    }
    printf("%d\n", n_cases);
    return 0;
}
