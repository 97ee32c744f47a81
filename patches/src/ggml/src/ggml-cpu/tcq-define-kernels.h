// The vec_dots of one instruction set and its table TCQ_KERNELS, from tcq_vec_dot and tcq_vec_dot_64 before the inclusion.

#define TCQ_DEFINE_VEC_DOT(R)                                                                                          \
    static void tcq_vec_dot_##R(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx,   \
                                const void * GGML_RESTRICT vy, size_t by, int nrc) {                                   \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                           \
        tcq_vec_dot(R, n, s, (const uint8_t *) vx, (const block_q8_K *) vy);                                           \
    }                                                                                                                  \
    static void tcq_vec_dot_##R##_64(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx, \
                                     const void * GGML_RESTRICT vy, size_t by, int nrc) {                              \
        GGML_UNUSED(nrc); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(bs);                                           \
        tcq_vec_dot_64(R, n, s, (const uint8_t *) vx, (const block_q8_0 *) vy);                                        \
    }

TCQ_DEFINE_VEC_DOT(1)
TCQ_DEFINE_VEC_DOT(2)
TCQ_DEFINE_VEC_DOT(3)
TCQ_DEFINE_VEC_DOT(4)
TCQ_DEFINE_VEC_DOT(5)

#define TCQ_STRING_(x) #x
#define TCQ_STRING(x)  TCQ_STRING_(x)
#define TCQ_PASTE_(a, b) a##b
#define TCQ_PASTE(a, b)  TCQ_PASTE_(a, b)

const tcq_kernels TCQ_PASTE(tcq_kernels_, TCQ_ISA) = {
    TCQ_STRING(TCQ_ISA),
    {
        { tcq_vec_dot_1,    tcq_vec_dot_2,    tcq_vec_dot_3,    tcq_vec_dot_4,    tcq_vec_dot_5    },
        { tcq_vec_dot_1_64, tcq_vec_dot_2_64, tcq_vec_dot_3_64, tcq_vec_dot_4_64, tcq_vec_dot_5_64 },
    },
};
