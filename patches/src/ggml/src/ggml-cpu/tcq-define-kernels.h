// The table of one instruction set's kernels, tcq_kernels_TCQ_ISA, from the inline functions before the inclusion:
// tcq_vec_dot, tcq_unpack, with TCQ_HAS_DOT_ROWS tcq_dot_rows, the same with _64, and tcq_multiply.

#define TCQ_DEFINE_KERNELS(R)                                                                                          \
    static void tcq_vec_dot_##R(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx,   \
                                const void * GGML_RESTRICT vy, size_t by, int nrc) {                                   \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                           \
        tcq_vec_dot(R, n, s, (const uint8_t *) vx, (const block_q8_K *) vy);                                           \
    }                                                                                                                  \
    static void tcq_vec_dot_##R##_64(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx, \
                                     const void * GGML_RESTRICT vy, size_t by, int nrc) {                              \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                           \
        tcq_vec_dot_64(R, n, s, (const uint8_t *) vx, (const block_q8_0 *) vy);                                        \
    }                                                                                                                  \
    static void tcq_unpack_##R     (const uint8_t * x, uint8_t * levels) { tcq_unpack   (R, x, levels); }              \
    static void tcq_unpack_##R##_64(const uint8_t * x, uint8_t * levels) { tcq_unpack_64(R, x, levels); }              \
    TCQ_DEFINE_DOT_ROWS(R)

#if defined(TCQ_HAS_DOT_ROWS)
#define TCQ_DEFINE_DOT_ROWS(R)                                                                                         \
    static void tcq_dot_rows_##R     (const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {    \
        tcq_dot_rows(R, x, y, s);                                                                                      \
    }                                                                                                                  \
    static void tcq_dot_rows_##R##_64(const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y, float s[TCQ_DOT_ROWS]) {    \
        tcq_dot_rows_64(R, x, y, s);                                                                                   \
    }
#else
#define TCQ_DEFINE_DOT_ROWS(R)
#endif

TCQ_DEFINE_KERNELS(1)
TCQ_DEFINE_KERNELS(2)
TCQ_DEFINE_KERNELS(3)
TCQ_DEFINE_KERNELS(4)
TCQ_DEFINE_KERNELS(5)

#define TCQ_STRING_(x) #x
#define TCQ_STRING(x)  TCQ_STRING_(x)
#define TCQ_PASTE_(a, b) a##b
#define TCQ_PASTE(a, b)  TCQ_PASTE_(a, b)

const tcq_kernels TCQ_PASTE(tcq_kernels_, TCQ_ISA) = {
    .name    = TCQ_STRING(TCQ_ISA),
    .vec_dot = {
        { tcq_vec_dot_1,    tcq_vec_dot_2,    tcq_vec_dot_3,    tcq_vec_dot_4,    tcq_vec_dot_5    },
        { tcq_vec_dot_1_64, tcq_vec_dot_2_64, tcq_vec_dot_3_64, tcq_vec_dot_4_64, tcq_vec_dot_5_64 },
    },
    .unpack = {
        { tcq_unpack_1,    tcq_unpack_2,    tcq_unpack_3,    tcq_unpack_4,    tcq_unpack_5    },
        { tcq_unpack_1_64, tcq_unpack_2_64, tcq_unpack_3_64, tcq_unpack_4_64, tcq_unpack_5_64 },
    },
#if defined(TCQ_HAS_DOT_ROWS)
    .dot_rows = {
        { tcq_dot_rows_1,    tcq_dot_rows_2,    tcq_dot_rows_3,    tcq_dot_rows_4,    tcq_dot_rows_5    },
        { tcq_dot_rows_1_64, tcq_dot_rows_2_64, tcq_dot_rows_3_64, tcq_dot_rows_4_64, tcq_dot_rows_5_64 },
    },
#endif
    .multiply = tcq_multiply,
};
