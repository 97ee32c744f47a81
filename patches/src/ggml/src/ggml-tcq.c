// TCQ: formats, unpacking and dequantization, and the entry points that ggml's type tables name.
// This is the reference: plain, bit for bit equal to the NumPy decoder. The fast decoders live with their backends.

#include "ggml-tcq.h"
#include "ggml-tcq-tables.h"

#include <assert.h>

#define TCQ_FORMAT(R) \
    { R, QK_TCQ,    (int) sizeof(block_tcq##R),      1 << (R - 1), 8, tcq##R##_levels, tcq##R##_slots,    TCQ_LO_##R    }
#define TCQ_FORMAT_64(R) \
    { R, QK_TCQ_64, (int) sizeof(block_tcq##R##_64), 1 << (R - 1), 2, tcq##R##_levels, tcq##R##_64_slots, TCQ_LO_##R##_64 }

#define TCQ_LO_1    NULL
#define TCQ_LO_2    tcq2_lo_position
#define TCQ_LO_3    tcq3_lo_position
#define TCQ_LO_4    tcq4_lo_position
#define TCQ_LO_5    tcq5_lo_position
#define TCQ_LO_1_64 NULL
#define TCQ_LO_2_64 tcq2_64_lo_position
#define TCQ_LO_3_64 tcq3_64_lo_position
#define TCQ_LO_4_64 tcq4_64_lo_position
#define TCQ_LO_5_64 tcq5_64_lo_position

static const tcq_format tcq_formats[5] = {
    TCQ_FORMAT(1), TCQ_FORMAT(2), TCQ_FORMAT(3), TCQ_FORMAT(4), TCQ_FORMAT(5),
};

static const tcq_format tcq_formats_64[5] = {
    TCQ_FORMAT_64(1), TCQ_FORMAT_64(2), TCQ_FORMAT_64(3), TCQ_FORMAT_64(4), TCQ_FORMAT_64(5),
};

const tcq_format * tcq_get_format(enum ggml_type type) {
    if (type >= GGML_TYPE_TCQ1    && type <= GGML_TYPE_TCQ5)    { return &tcq_formats   [type - GGML_TYPE_TCQ1];    }
    if (type >= GGML_TYPE_TCQ1_64 && type <= GGML_TYPE_TCQ5_64) { return &tcq_formats_64[type - GGML_TYPE_TCQ1_64]; }
    return NULL;
}

float tcq_block_scale(const tcq_format * f, const uint8_t * block) {
    return tcq_scale[block[f->type_size - 1]];
}

void tcq_unpack_block(const tcq_format * f, const uint8_t * block, int16_t * w) {
    const int       n       = f->block_size;
    const int       n_bytes = n/8;
    const uint8_t * lo_bits = block + n_bytes;
    const uint8_t * slots   = block + f->rate*n_bytes;

    // the chain is cyclic: before time 0 come the last 8 path bits, bit b of the window being b steps old
    unsigned window = 0;
    for (int b = 0; b < 8; ++b) {
        window |= (unsigned) (block[n_bytes - 1] >> (7 - b) & 1) << b;
    }

    for (int i = 0; i < n; ++i) {
        const int y = i >> 3, k = i & 7;
        const int j = n_bytes*k + y;

        window = (window << 1 | (block[y] >> k & 1)) & 0x1ff;

        int index = tcq_subset[window];
        for (int b = 0; b < f->rate - 1; ++b) {
            const int position = f->lo_position[j*(f->rate - 1) + b];
            index |= (lo_bits[position >> 3] >> (position & 7) & 1) << (3 + b);
        }
        w[j] = f->levels[index];
    }

    if (n == QK_TCQ) {
        w[slots[0]] += f->slots[slots[2] & 0xf];
        w[slots[1]] += f->slots[slots[2] >> 4];
    } else {
        w[slots[0] & 0x3f] += f->slots[slots[0] >> 6];
    }
}

static void tcq_dequantize_row(const tcq_format * f, const uint8_t * x, float * y, int64_t k) {
    assert(k % f->block_size == 0);

    for (int64_t i = 0; i < k; i += f->block_size, x += f->type_size) {
        int16_t w[QK_TCQ];
        tcq_unpack_block(f, x, w);
        const float d = tcq_block_scale(f, x);
        for (int j = 0; j < f->block_size; ++j) {
            y[i + j] = d*w[j];
        }
    }
}

static size_t tcq_quantize(const tcq_format * f, const float * src, void * dst,
                           int64_t nrows, int64_t n_per_row, const float * imatrix) {
    assert(n_per_row % f->block_size == 0);

    tcq_encode_rows(f, src, dst, nrows, n_per_row, imatrix);
    return nrows*(n_per_row/f->block_size)*f->type_size;
}

size_t quantize_tcq(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst,
                    int64_t nrows, int64_t n_per_row, const float * imatrix) {
    return tcq_quantize(tcq_get_format(type), src, dst, nrows, n_per_row, imatrix);
}

#define TCQ_DEFINE_TYPE(name, NAME, qk)                                                                    \
    void dequantize_row_##name(const void * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {         \
        tcq_dequantize_row(tcq_get_format(GGML_TYPE_##NAME), x, y, k);                                     \
    }                                                                                                      \
    void quantize_row_##name##_ref(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {     \
        tcq_quantize(tcq_get_format(GGML_TYPE_##NAME), x, y, 1, k, NULL);                                  \
    }

TCQ_FOR_EACH_TYPE(TCQ_DEFINE_TYPE)
