// TCQ encoding on several threads. Rows are independent, so the bytes do not depend on the number of threads.

#include "ggml-tcq.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

// calls f(first, last) for slabs of rows on n_threads threads
template <typename F>
static void tcq_for_slabs(int64_t nrows, int64_t slab, int n_threads, F f) {
    std::atomic<int64_t> next{0};
    auto work = [&] {
        for (int64_t first; (first = next.fetch_add(slab)) < nrows; ) {
            f(first, std::min(first + slab, nrows));
        }
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < std::min<int64_t>(n_threads, (nrows + slab - 1)/slab); ++i) {
        threads.emplace_back(work);
    }
    work();
    for (auto & thread : threads) {
        thread.join();
    }
}

size_t tcq_quantize_mt(enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row,
                       const float * importance, int n_threads) {
    const tcq_format * f = tcq_get_format(type);
    const int64_t row_size = n_per_row/f->block_size*f->type_size;
    const int64_t slab     = std::max<int64_t>(1, 32768/n_per_row);

    tcq_for_slabs(nrows, slab, n_threads, [&](int64_t first, int64_t last) {
        tcq_encode_rows(f, src + first*n_per_row, (uint8_t *) dst + first*row_size, last - first, n_per_row, importance);
    });
    return nrows*row_size;
}

size_t tcq_quantize_feedback_mt(enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row,
                                const tcq_feedback * feedback, int n_threads) {
    const tcq_format * f = tcq_get_format(type);
    const int64_t row_size = n_per_row/f->block_size*f->type_size;

    tcq_for_slabs(nrows, 16, n_threads, [&](int64_t first, int64_t last) {
        tcq_encode_rows_feedback(f, src + first*n_per_row, (uint8_t *) dst + first*row_size, last - first, n_per_row, feedback);
    });
    return nrows*row_size;
}
