// TCQ: formats, unpacking and dequantization.
// This is the reference: plain, bit for bit equal to the NumPy decoder. The fast decoders are in the backends.

#include "ggml-tcq.h"
#include "ggml-tcq-tables.h"

#include <assert.h>

#define TCQ_FORMAT(R, n, suffix, n_scales)                                         \
    { R, n, (int) sizeof(block_tcq##R##suffix), 1 << (R - 1), n_scales,            \
      TCQ##R##_LEVEL_RMS, tcq##R##_levels, tcq##R##suffix##_slots, tcq_scale##suffix, tcq##R##suffix##_lo_position },

#define TCQ_FORMAT_256(R) TCQ_FORMAT(R, QK_TCQ,    ,    128)
#define TCQ_FORMAT_64(R)  TCQ_FORMAT(R, QK_TCQ_64, _64, 256)

static const tcq_format tcq_formats   [TCQ_N_RATES] = { TCQ_RATES(TCQ_FORMAT_256) };
static const tcq_format tcq_formats_64[TCQ_N_RATES] = { TCQ_RATES(TCQ_FORMAT_64)  };

const tcq_format * tcq_get_format(enum ggml_type type) {
    if (type >= GGML_TYPE_TCQ1 && type < GGML_TYPE_TCQ1 + TCQ_N_RATES) {
        return &tcq_formats[type - GGML_TYPE_TCQ1];
    }
    if (type >= GGML_TYPE_TCQ1_64 && type < GGML_TYPE_TCQ1_64 + TCQ_N_RATES) {
        return &tcq_formats_64[type - GGML_TYPE_TCQ1_64];
    }
    return NULL;
}

float tcq_block_scale(const tcq_format * f, const uint8_t * block) {
    return f->scales[tcq_scale_index(f->block_size, block[f->type_size - 1])];
}

uint32_t tcq_block_slots(const tcq_format * f, const uint8_t * block) {
    const uint8_t * at = block + f->rate*f->block_size/8;
    return f->block_size == QK_TCQ ? at[0] | at[1] << 8 | (uint32_t) at[2] << 16 | (uint32_t) at[3] << 24 : at[0];
}

void tcq_add_slots(const tcq_format * f, uint32_t slots, int16_t * w) {
    for (int i = 0; i < tcq_n_slots(f->block_size); ++i) {
        w[tcq_slot_position(f->block_size, slots, i)] += f->slots[tcq_slot_index(f->block_size, slots, i)];
    }
}

void tcq_unpack_block(const tcq_format * f, const uint8_t * block, int16_t * w) {
    const int       n       = f->block_size;
    const int       n_bytes = n/8;
    const uint8_t * lo_bits = block + n_bytes;

    // the chain is cyclic: before time 0 come the last 8 path bits, bit b of the window being b steps old
    unsigned window = 0;
    for (int b = 0; b < 8; ++b) {
        window |= (unsigned) (block[n_bytes - 1] >> (7 - b) & 1) << b;
    }

    for (int i = 0; i < n; ++i) {
        const int j = tcq_weight_at(n, i);

        window = (window << 1 | (block[i >> 3] >> (i & 7) & 1)) & 0x1ff;

        int index = tcq_subset[window];
        for (int b = 0; b < f->rate - 1; ++b) {
            const int position = f->lo_position[j*(f->rate - 1) + b];
            index |= (lo_bits[position >> 3] >> (position & 7) & 1) << (TCQ_N_PARITIES + b);
        }
        w[j] = f->levels[index];
    }
    tcq_add_slots(f, tcq_block_slots(f, block), w);
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

#define TCQ_DEFINE_DEQUANTIZE_ROW(name, NAME, qk)                                                      \
    void dequantize_row_##name(const void * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {     \
        tcq_dequantize_row(tcq_get_format(GGML_TYPE_##NAME), x, y, k);                                 \
    }
TCQ_FOR_EACH_TYPE(TCQ_DEFINE_DEQUANTIZE_ROW)
