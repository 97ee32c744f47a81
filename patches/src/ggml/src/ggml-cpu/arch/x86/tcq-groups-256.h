// TCQ rows repacked in groups (tcq-repack.h), in 256-bit registers: byte 4r + c of a vector is row r, and each 32-bit lane is
// a row. After tcq-256.h.
//
// The parities of a whole block come first, then its levels, so that the tables of either loop stay in registers.

TCQ_INLINE __m256i tcq_twice(__m256i v) {
    return _mm256_add_epi8(v, v);
}

// bit 3 of every byte to bit 7
TCQ_INLINE __m256i tcq_raise(__m256i v) {
    return _mm256_slli_epi16(v, 4);
}

// v with the last bit of each nibble changed where it is set in bits
TCQ_INLINE __m256i tcq_xor_last_bits(__m256i v, __m256i bits) {
    return _mm256_xor_si256(v, _mm256_and_si256(bits, _mm256_set1_epi8((char) 0x88)));
}

// z[i][p]: parities of k = 2p | of 2p + 1 << 4
TCQ_INLINE void tcq_group_parities_of(int rate, const uint8_t * x, __m256i z[8][4]) {
    const uint8_t * tables = rate == 1 ? tcq_group_parities : tcq_relative_parities;

    // path byte y - 1 of i = 0 is that of i = 7 and c - 1
    const __m256i before = _mm256_shuffle_epi8(tcq_load(x + 7*32*rate), _mm256_setr_epi8(
        3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14));
    __m256i prev_low = tcq_low_nibbles(before), prev_high = tcq_high_nibbles(before);
#pragma GCC unroll 2
    for (int i = 0; i < 8; ++i) {
        const __m256i path    = tcq_load(x + 32*rate*i);
        const __m256i cur_low = tcq_low_nibbles(path), cur_high = tcq_high_nibbles(path);
        for (int p = 0; p < 2; ++p) {
            z[i][p + 0] = tcq_lookup_3(tables + 48*p, prev_low,  prev_high, cur_low);
            z[i][p + 2] = tcq_lookup_3(tables + 48*p, prev_high, cur_low,   cur_high);
        }
        prev_low  = cur_low;
        prev_high = cur_high;
    }
}

// what stands at i besides the path, before pair p
typedef struct {
    __m256i first;  // the signs as stored
    __m256i sign;   // bit 7: of 2p + 1, bit 3: of 2p, with a bit below
    __m256i lo[2];  // likewise
} tcq_group_planes;

TCQ_INLINE tcq_group_planes tcq_load_group_planes(int rate, const uint8_t * x) {
    tcq_group_planes v;
    v.lo[0] = v.lo[1] = _mm256_setzero_si256(); // unread at rates that have fewer
    v.first = tcq_load(x + 32);
    v.sign  = tcq_set_bit_0(v.first);
    for (int b = 0; b < rate - 2; ++b) {
        v.lo[b] = tcq_load(x + 64 + 32*b);
    }
    return v;
}

TCQ_INLINE __m256i tcq_group_size(int rate, const __m256i * t, __m256i i, __m256i lo_0, __m256i lo_1) {
    const __m256i a = _mm256_shuffle_epi8(t[0], i);
    if (rate == 2) {
        return a;
    }
    const __m256i b = tcq_select(a, _mm256_shuffle_epi8(t[1], i), lo_0);
    if (rate == 3) {
        return b;
    }
    return tcq_select(b, tcq_select(_mm256_shuffle_epi8(t[2], i), _mm256_shuffle_epi8(t[3], i), lo_0), lo_1);
}

// weights of k = 2p and 2p + 1; goes on to the next pair
TCQ_INLINE void tcq_group_pair(int rate, const __m256i * t, const __m256i * z, int p, tcq_group_planes * v, tcq_weights w[2]) {
    if (p == 3) {
        v->sign = _mm256_slli_epi16(v->first, 3); // its bit 3 is where the bit below came from
    }
    const __m256i i = tcq_xor_last_bits(*z, v->sign);

    w[0].size = tcq_group_size(rate, t, tcq_low_nibbles(i), tcq_raise(v->lo[0]), tcq_raise(v->lo[1]));
    w[1].size = tcq_group_size(rate, t, tcq_high_nibbles(i), v->lo[0], v->lo[1]);
    w[0].sign = tcq_raise(v->sign);
    w[1].sign = v->sign;
    if (p == 3) {
        w[0].sign = tcq_set_bit_0(w[0].sign);
        w[1].sign = tcq_set_bit_0(w[1].sign);
    }
    v->sign  = tcq_twice(v->sign);
    v->lo[0] = tcq_twice(v->lo[0]);
    v->lo[1] = tcq_twice(v->lo[1]);
}

// rate 5: twice the size at the parities i and the entry for the lo bits
TCQ_INLINE __m256i tcq_group_cell(const __m256i * t, __m256i i, __m256i entry) {
    const __m256i bit_6 = tcq_twice(entry), bit_5 = tcq_twice(bit_6), bit_4 = tcq_twice(bit_5);
    const __m256i cells_0_1 = tcq_select(_mm256_shuffle_epi8(t[3], i), _mm256_shuffle_epi8(t[4], i), bit_4);
    const __m256i clear     = tcq_select(cells_0_1,                    _mm256_shuffle_epi8(t[1], i), bit_6);
    const __m256i set       = tcq_select(_mm256_shuffle_epi8(t[2], i), _mm256_shuffle_epi8(t[0], i), bit_6);
    return _mm256_and_si256(_mm256_add_epi8(tcq_select(clear, set, bit_5), entry), _mm256_set1_epi8(0x7e));
}

// rate 5: as tcq_group_pair, but twice the sizes
TCQ_INLINE void tcq_group_pair_5(const __m256i * t, const __m256i * z, __m256i lo, tcq_weights w[2]) {
    const __m256i i = tcq_xor_last_bits(*z, lo);

    w[0].sign = tcq_lookup(tcq5_cells, tcq_low_nibbles(lo));
    w[1].sign = tcq_lookup(tcq5_cells, tcq_high_nibbles(lo));
    w[0].size = tcq_group_cell(t, tcq_low_nibbles(i), w[0].sign);
    w[1].size = tcq_group_cell(t, tcq_high_nibbles(i), w[1].sign);
}

TCQ_INLINE void tcq_load_group_tables(int rate, __m256i t[5]) {
    const uint8_t * tables = rate == 2 ? tcq2_group_sizes : rate == 3 ? tcq3_group_sizes :
                             rate == 4 ? tcq4_group_sizes : tcq5_group_sizes;
    for (int j = 0; j < (rate == 1 ? 0 : rate == 5 ? 5 : 1 << (rate - 2)); ++j) {
        t[j] = tcq_load_twice(tables + 16*j);
    }
}

TCQ_INLINE __m256i tcq_broadcast_4(const int8_t * q) {
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}

TCQ_INLINE __m256i tcq_group_madd(__m256i acc, __m256i sums) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
}

// acc and the products of pair p of i with 8 values of the column; at rate 5, twice the products
TCQ_INLINE __m256i tcq_group_mul_add(int rate, const __m256i * t, const __m256i * z, const uint8_t * x, int p,
                                     tcq_group_planes * planes, const int8_t * q, __m256i acc) {
    const __m256i q0 = tcq_broadcast_4(q), q1 = tcq_broadcast_4(q + 4);
    if (rate == 1) {
        acc = tcq_group_madd(acc, _mm256_maddubs_epi16(tcq_lookup(tcq1_lut, tcq_low_nibbles(*z)), q0));
        return tcq_group_madd(acc, _mm256_maddubs_epi16(tcq_lookup(tcq1_lut, tcq_high_nibbles(*z)), q1));
    }
    tcq_weights w[2];
    if (rate == 5) {
        tcq_group_pair_5(t, z, tcq_load(x + 32 + 32*p), w);
    } else {
        tcq_group_pair(rate, t, z, p, planes, w);
    }
    const __m256i sums_0 = _mm256_maddubs_epi16(w[0].size, _mm256_sign_epi8(q0, w[0].sign));
    const __m256i sums_1 = _mm256_maddubs_epi16(w[1].size, _mm256_sign_epi8(q1, w[1].sign));
    return rate == 5 ? tcq_group_madd(tcq_group_madd(acc, sums_0), sums_1) : // of four products 16 bits would overflow
                       tcq_group_madd(acc, _mm256_add_epi16(sums_0, sums_1));
}

TCQ_INLINE int tcq_dot_group_slots(const int16_t * slots, const uint8_t * x, const int8_t * q) {
    const int16_t * value = slots + 4*x[3];
    return value[0]*q[x[0]] + value[1]*q[x[1]] + value[2]*q[x[2]];
}

TCQ_INLINE void tcq_group_dot(int rate, const uint8_t * x, int n, const tcq_column * y, float * s) {
    const size_t    size  = tcq_group_block_size(rate);
    const int16_t * slots = TCQ_BY_RATE(rate, _slots);

    __m256i t[5], z[8][4];
    tcq_load_group_tables(rate, t);

    // of slots; those of the next block meanwhile: a vector cannot be loaded right after its parts were stored
    int32_t of_slots[2][TCQ_GROUP] __attribute__((aligned(32)));
    for (int r = 0; r < TCQ_GROUP; ++r) {
        of_slots[0][r] = tcq_dot_group_slots(slots, ((const tcq_group_side *) (x + 8*32*rate))->slots[r], y->q);
    }
    __m256 sum = _mm256_setzero_ps();

    const int n_blocks = n*y->n_blocks;
    for (int j = 0, b = 0; j < n_blocks; ++j, x += size) {
        const tcq_group_side * side   = (const tcq_group_side *) (x + 8*32*rate);
        const tcq_group_side * next   = (const tcq_group_side *) ((const uint8_t *) side + (j + 1 < n_blocks ? size : 0));
        const int              next_b = b + 1 < y->n_blocks ? b + 1 : 0;

        tcq_group_parities_of(rate, x, z);

        __m256i acc = tcq_load(of_slots[j & 1]);
        if (rate == 1) {
            acc = _mm256_add_epi32(acc, _mm256_set1_epi32(y->bias[b]));
        } else if (rate == 5) {
            acc = _mm256_add_epi32(acc, acc);
        }
        for (int i = 0; i < 8; ++i) {
            const uint8_t * xi = x + 32*rate*i;
            const int8_t  * qi = y->q + QK_TCQ*b + 32*i;
            tcq_group_planes planes;
            if (rate > 1 && rate < 5) {
                planes = tcq_load_group_planes(rate, xi);
            }
            of_slots[(j + 1) & 1][i] = tcq_dot_group_slots(slots, next->slots[i], y->q + QK_TCQ*next_b);
            for (int k = 0; k < 32*rate; k += 64) {
                _mm_prefetch((const char *) xi + y->ahead + k, _MM_HINT_T0);
            }
#pragma GCC unroll 4
            for (int p = 0; p < 4; ++p) {
                acc = tcq_group_mul_add(rate, t, &z[i][p], xi, p, &planes, qi + 8*p, acc);
            }
        }
        const __m256 d = _mm256_mul_ps(_mm256_loadu_ps(side->d), _mm256_set1_ps(rate == 5 ? 0.5f*y->d[b] : y->d[b]));
        sum = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(acc), sum);

        b = next_b;
        if (b == 0) {
            _mm256_storeu_ps(s, sum);
            s  += TCQ_GROUP;
            sum = _mm256_setzero_ps();
        }
    }
}

// lane r of vector k to lane k of vector r
TCQ_INLINE void tcq_transpose_8(__m256i v[8]) {
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i + 0] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            b[i + 2*j + 0] = _mm256_unpacklo_epi64(a[i + j], a[i + j + 2]);
            b[i + 2*j + 1] = _mm256_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    }
    for (int i = 0; i < 4; ++i) {
        v[i + 0] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

TCQ_INLINE void tcq_group_unpack(int rate, const uint8_t * x, uint8_t * levels) {
    __m256i t[5], z[8][4];
    tcq_load_group_tables(rate, t);
    tcq_group_parities_of(rate, x, z);

    for (int i = 0; i < 8; ++i) {
        const uint8_t * xi = x + 32*rate*i;
        tcq_group_planes planes;
        if (rate > 1 && rate < 5) {
            planes = tcq_load_group_planes(rate, xi);
        }
        __m256i v[8];
        for (int p = 0; p < 4; ++p) {
            tcq_weights w[2];
            if (rate == 1) {
                v[2*p + 0] = tcq_lookup(tcq1_lut, tcq_low_nibbles(z[i][p]));
                v[2*p + 1] = tcq_lookup(tcq1_lut, tcq_high_nibbles(z[i][p]));
                continue;
            } else if (rate == 5) {
                tcq_group_pair_5(t, &z[i][p], tcq_load(xi + 32 + 32*p), w);
                w[0].size = _mm256_srli_epi16(w[0].size, 1); // bit 0 is clear
                w[1].size = _mm256_srli_epi16(w[1].size, 1);
            } else {
                tcq_group_pair(rate, t, &z[i][p], p, &planes, w);
            }
            for (int j = 0; j < 2; ++j) { // signs are set below zero
                v[2*p + j] = _mm256_add_epi8(_mm256_set1_epi8(TCQ_BIAS), _mm256_sign_epi8(w[j].size, w[j].sign));
            }
        }
        tcq_transpose_8(v);
        for (int r = 0; r < TCQ_GROUP; ++r) {
            _mm256_storeu_si256((__m256i *) (levels + QK_TCQ*r + 32*i), v[r]);
        }
    }
}

#define TCQ_HAS_GROUPS
