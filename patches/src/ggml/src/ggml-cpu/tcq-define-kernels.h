// The table of one instruction set's kernels, tcq_kernels_TCQ_ISA, from the inline functions defined before the inclusion:
// tcq_vec_dot, tcq_unpack, with TCQ_HAS_DOT_ROWS tcq_dot_rows, each also with _64, with TCQ_HAS_GROUPS tcq_group_unpack and
// tcq_group_dot, and tcq_multiply.

#define TCQ_DEFINE_VEC_DOT(R, suffix, act)                                                                             \
    static void tcq_vec_dot_##R##suffix(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx,      \
                                        size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {                \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                           \
        tcq_vec_dot##suffix(R, n, s, (const uint8_t *) vx, (const block_##act *) vy);                                  \
    }
#define TCQ_DEFINE_UNPACK(R, suffix)                                                                                   \
    static void tcq_unpack_##R##suffix(const uint8_t * x, uint8_t * levels) {                                          \
        tcq_unpack##suffix(R, x, levels);                                                                              \
    }
#define TCQ_DEFINE_DOT_ROWS(R, suffix)                                                                                 \
    static void tcq_dot_rows_##R##suffix(const uint8_t * const x[TCQ_DOT_ROWS], const tcq_column * y,                  \
                                         float s[TCQ_DOT_ROWS]) {                                                      \
        tcq_dot_rows##suffix(R, x, y, s);                                                                              \
    }

#define TCQ_DEFINE_KERNELS(R)                                                                                          \
    TCQ_DEFINE_VEC_DOT(R, , q8_K) TCQ_DEFINE_VEC_DOT(R, _64, q8_0)                                                     \
    TCQ_DEFINE_UNPACK (R, )       TCQ_DEFINE_UNPACK (R, _64)
TCQ_RATES(TCQ_DEFINE_KERNELS)

#if defined(TCQ_HAS_DOT_ROWS)
#define TCQ_DEFINE_ALL_DOT_ROWS(R) TCQ_DEFINE_DOT_ROWS(R, ) TCQ_DEFINE_DOT_ROWS(R, _64)
TCQ_RATES(TCQ_DEFINE_ALL_DOT_ROWS)
#endif

#define TCQ_DEFINE_GROUP(R)                                                                                            \
    static void tcq_group_unpack_##R(const uint8_t * x, uint8_t * levels) {                                            \
        tcq_group_unpack(R, x, levels);                                                                                \
    }                                                                                                                  \
    static void tcq_group_dot_##R(const uint8_t * x, int n, const tcq_column * y, float * s) {                         \
        tcq_group_dot(R, x, n, y, s);                                                                                  \
    }
#if defined(TCQ_HAS_GROUPS)
TCQ_RATES(TCQ_DEFINE_GROUP)
#endif

#define TCQ_VEC_DOT_256(R)  tcq_vec_dot_##R,
#define TCQ_VEC_DOT_64(R)   tcq_vec_dot_##R##_64,
#define TCQ_UNPACK_256(R)   tcq_unpack_##R,
#define TCQ_UNPACK_64(R)    tcq_unpack_##R##_64,
#define TCQ_DOT_ROWS_256(R) tcq_dot_rows_##R,
#define TCQ_DOT_ROWS_64(R)  tcq_dot_rows_##R##_64,
#define TCQ_GROUP_UNPACK(R) tcq_group_unpack_##R,
#define TCQ_GROUP_DOT(R)    tcq_group_dot_##R,

#define TCQ_STRING_(x) #x
#define TCQ_STRING(x)  TCQ_STRING_(x)
#define TCQ_PASTE_(a, b) a##b
#define TCQ_PASTE(a, b)  TCQ_PASTE_(a, b)

const tcq_kernels TCQ_PASTE(tcq_kernels_, TCQ_ISA) = {
    .name     = TCQ_STRING(TCQ_ISA),
    .vec_dot  = { { TCQ_RATES(TCQ_VEC_DOT_256)  }, { TCQ_RATES(TCQ_VEC_DOT_64)  } },
    .unpack   = { { TCQ_RATES(TCQ_UNPACK_256)   }, { TCQ_RATES(TCQ_UNPACK_64)   } },
#if defined(TCQ_HAS_DOT_ROWS)
    .dot_rows = { { TCQ_RATES(TCQ_DOT_ROWS_256) }, { TCQ_RATES(TCQ_DOT_ROWS_64) } },
#endif
#if defined(TCQ_HAS_GROUPS)
    .unpack_group = { TCQ_RATES(TCQ_GROUP_UNPACK) },
    .dot_groups   = { TCQ_RATES(TCQ_GROUP_DOT) },
#endif
    .multiply = tcq_multiply,
};
