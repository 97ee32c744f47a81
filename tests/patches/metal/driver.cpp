// Runs the Metal kernels of TCQ on the CPU, launched as ggml-metal-ops.cpp launches them. For ctypes; strides are those
// of contiguous tensors.

#include "quantize.metal"
#include "mul_mv.metal"
#include "mul_mm.metal"

#include <string>

template <typename F> static void for_each_threadgroup(uint nx, uint ny, uint nz, int n_threads, F f) {
    for (uint z = 0; z < nz; ++z) {
        for (uint y = 0; y < ny; ++y) {
            for (uint x = 0; x < nx; ++x) {
                metal_cpu::run_threadgroup(n_threads, [&](int t) { f(uint3{ x, y, z }, (ushort) t); });
            }
        }
    }
}

static uint ceil_div(uint a, uint b) { return (a + b - 1)/b; }

// calls f(a null pointer to the type's block)
template <typename F> static int with_type(const char * type, F f) {
#define TCQ_CASE(name, NAME, qk) if (std::string(type) == #name) { f((block_##name *) nullptr); return 0; }
    TCQ_FOR_EACH_TYPE(TCQ_CASE)
#undef TCQ_CASE
    return -1;
}

#define BLOCK typename std::remove_pointer<decltype(null)>::type
#define N_16 (tcq_traits<BLOCK>::block_size/16)

alignas(16) static char shmem[16*1024];

// sizes of a product; src0 (ne02, ne01, ne00), src1 (ne12, ne11, ne00), dst (ne12, ne11, ne01)
struct sizes { int32_t ne00, ne01, ne02, ne11, ne12; };

template <typename T> static uint64_t row_bytes(const sizes & n) {
    return (uint64_t) n.ne00/tcq_traits<T>::block_size*sizeof(T);
}

extern "C" {

// dst (n_ids, ne00) = rows of src0 (.., ne00)
int tcq_get_rows(const char * type, const char * src0, const int32_t * ids, float * dst, int32_t ne00, int32_t n_ids) {
    return with_type(type, [&](auto * null) {
        ggml_metal_kargs_get_rows args = {};
        args.ne00t = ne00/16;
        args.ne00  = ne00;
        args.nb01  = ne00/tcq_traits<BLOCK>::block_size*sizeof(BLOCK);
        args.ne10  = n_ids;
        args.nb10  = sizeof(int32_t);
        args.nb1   = ne00*sizeof(float);
        const ushort3 ntg = { 32, 1, 1 };
        for_each_threadgroup(ceil_div(args.ne00t, 32)*n_ids, 1, 1, 32, [&](uint3 tgpig, ushort t) {
            kernel_get_rows_q<BLOCK, N_16, dequantize_tcq>(args, src0, ids, dst, tgpig, t, ntg);
        });
    });
}

// dst (ne01, ne00) = src0 as half
int tcq_copy_f16(const char * type, const char * src0, half * dst, int32_t ne00, int32_t ne01) {
    return with_type(type, [&](auto * null) {
        ggml_metal_kargs_cpy args = {};
        args.nk0  = ne00/16;
        args.ne00 = args.ne0 = ne00;
        args.ne01 = args.ne1 = ne01;
        args.ne02 = args.ne2 = args.ne03 = args.ne3 = 1;
        args.nb01 = ne00/tcq_traits<BLOCK>::block_size*sizeof(BLOCK);
        args.nb0  = sizeof(half);
        args.nb1  = ne00*sizeof(half);
        const ushort3 ntg = { 32, 1, 1 };
        for_each_threadgroup(ceil_div(args.nk0, 32)*ne01, 1, 1, 32, [&](uint3 tgpig, ushort t) {
            kernel_cpy_q_f32<half4x4, BLOCK, N_16, dequantize_tcq>(args, src0, (char *) dst, tgpig, ushort3{ t, 0, 0 }, ntg);
        });
    });
}

int tcq_mul_mv(const char * type, const char * src0, const char * src1, char * dst, sizes n) {
    return with_type(type, [&](auto * null) {
        const uint64_t nb01 = row_bytes<BLOCK>(n), nb11 = n.ne00*sizeof(float);
        const ggml_metal_kargs_mul_mv args = {
            n.ne00, n.ne01, n.ne02, sizeof(BLOCK), nb01, nb01*n.ne01, nb01*n.ne01*n.ne02,
            n.ne00, n.ne11, n.ne12, sizeof(float), nb11, nb11*n.ne11, nb11*n.ne11*n.ne12,
            n.ne01, n.ne11, N_R0_TCQ, 0, 0,
        };
        FC_mul_mv_nsg  = N_SG_TCQ;
        FC_mul_mv_ne12 = n.ne12;
        FC_mul_mv_r2   = n.ne12/n.ne02;
        FC_mul_mv_r3   = 1;
        for_each_threadgroup(ceil_div(n.ne01, N_R0_TCQ*N_SG_TCQ), n.ne11, n.ne12, 32*N_SG_TCQ, [&](uint3 tgpig, ushort t) {
            kernel_mul_mv_tcq_f32<BLOCK>(args, src0, src1, dst, shmem, tgpig, t%32, t/32);
        });
    });
}

int tcq_mul_mm(const char * type, const char * src0, const char * src1, char * dst, sizes n) {
    return with_type(type, [&](auto * null) {
        const uint64_t nb01 = row_bytes<BLOCK>(n), nb11 = n.ne00*sizeof(float);
        const ggml_metal_kargs_mul_mm args = {
            n.ne00, n.ne02, nb01, nb01*n.ne01, nb01*n.ne01*n.ne02,
            n.ne12, sizeof(float), nb11, nb11*n.ne11, nb11*n.ne11*n.ne12, n.ne01, n.ne11, 0, 0,
        };
        FC_mul_mm_bc_inp = n.ne00 % 32 != 0;
        FC_mul_mm_bc_out = n.ne01 % 64 != 0 || n.ne11 % 32 != 0;
        FC_mul_mm_ne12   = n.ne12;
        FC_mul_mm_ne13   = 1;
        FC_mul_mm_r2     = n.ne12/n.ne02;
        FC_mul_mm_r3     = 1;
        for_each_threadgroup(ceil_div(n.ne11, 32), ceil_div(n.ne01, 64), n.ne12, 128, [&](uint3 tgpig, ushort t) {
            kernel_mul_mm<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, BLOCK, N_16, dequantize_tcq,
                          float, float4x4, float, float2x4>(args, src0, src1, dst, shmem, tgpig, t, t/32);
        });
    });
}

// src0 (ne02 experts, ne01, ne00), src1 (ne12 tokens, n_used, ne00), ids (ne12, n_used), dst (ne12, n_used, ne01)
int tcq_mul_mv_id(const char * type, const char * src0, const char * src1, const char * ids, char * dst, sizes n) {
    return with_type(type, [&](auto * null) {
        const uint64_t nb01 = row_bytes<BLOCK>(n), nb11 = n.ne00*sizeof(float);
        const int n_used = n.ne11;
        const ggml_metal_kargs_mul_mv_id args = {
            n_used, n.ne12, n_used*sizeof(int32_t), n.ne00, n.ne01, n.ne02, sizeof(BLOCK), nb01, nb01*n.ne01,
            n.ne00, n_used, n.ne12, 1, sizeof(float), nb11, nb11*n_used, n.ne01, n_used, n.ne01*sizeof(float), N_R0_TCQ,
        };
        FC_mul_mv_nsg  = N_SG_TCQ;
        FC_mul_mv_ne12 = FC_mul_mv_r2 = FC_mul_mv_r3 = 1;
        for_each_threadgroup(ceil_div(n.ne01, N_R0_TCQ*N_SG_TCQ), 1, n.ne12*n_used, 32*N_SG_TCQ, [&](uint3 tgpig, ushort t) {
            kernel_mul_mv_id<mmv_fn<kernel_mul_mv_tcq_f32_impl<BLOCK, N_R0_TCQ>>>(
                args, src0, src1, dst, ids, shmem, tgpig, t, t%32, t/32);
        });
    });
}

// the same for two experts a token
int tcq_mul_mm_id(const char * type, const char * src0, const char * src1, const char * ids, char * dst, sizes n) {
    constexpr int n_used = 2;
    if (n.ne11 != n_used) {
        return -1;
    }
    return with_type(type, [&](auto * null) {
        const uint64_t nb01 = row_bytes<BLOCK>(n), nb11 = n.ne00*sizeof(float);
        std::vector<uint32_t> tokens_per_expert(n.ne02);
        std::vector<int32_t>  sorted_ids(n.ne02*n.ne12 + 1); // the last write of each expert may be one too far

        const ggml_metal_kargs_mul_mm_id_map0 map = {
            n.ne02, n.ne00, n_used, nb11, nb11*n_used, n.ne12, n_used, n_used*sizeof(int32_t),
        };
        const int n_threads = 32*ceil_div(n.ne02, 32);
        metal_cpu::run_threadgroup(n_threads, [&](int t) { // ggml launches one thread an expert
            if (t < n.ne02) {
                kernel_mul_mm_id_map0<n_used>(map, ids, (char *) tokens_per_expert.data(), (char *) sorted_ids.data(), shmem, t, n.ne02);
            }
        });

        const ggml_metal_kargs_mul_mm_id args = {
            n.ne00, n.ne02, nb01, nb01*n.ne01, nb01*n.ne01*n.ne02, n_used, sizeof(float), nb11, nb11*n_used, nb11*n_used*n.ne12,
            n_used, n.ne12, n.ne01, n_used, 1, 1,
        };
        FC_mul_mm_bc_inp  = n.ne00 % 32 != 0;
        FC_mul_mm_id_amax = false;
        for_each_threadgroup(ceil_div(n.ne12, 32), ceil_div(n.ne01, 64), n.ne02, 128, [&](uint3 tgpig, ushort t) {
            kernel_mul_mm_id<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, BLOCK, N_16, dequantize_tcq,
                             float, float4x4, float, float2x4>(
                args, src0, src1, (const char *) tokens_per_expert.data(), (const char *) sorted_ids.data(), dst, nullptr,
                shmem, tgpig, t, t%32, t/32);
        });
    });
}

} // extern "C"
