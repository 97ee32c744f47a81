// TCQ on CUDA: dequantization, get_rows, and the activations of mmvq.

#include "tcq.cuh"
#include "convert.cuh"

// ---------------------------------------------------------------------------------------------------------------
// dequantization

// the 32 weights of one word of the path; y is where the block's first weight goes
template <ggml_type type, typename dst_t>
static __device__ __forceinline__ void tcq_dequantize_word(const uint8_t * block, int word, dst_t * y) {
    using T = tcq_traits<type>;

    const uint32_t tail = tcq_load_tail<T>(block);
    const float    d    = tcq_get_scale<T>(tail);

    int slot_position[T::n_slots];
    int slot_value   [T::n_slots];
#pragma unroll
    for (int slot = 0; slot < T::n_slots; ++slot) {
        slot_position[slot] = tcq_get_slot_position<T>(tail, slot);
        slot_value   [slot] = tcq_get_slot_value<T>(tail, slot);
    }

    const tcq_levels l = tcq_unpack_levels<T>(block, word);

#pragma unroll
    for (int k = 0; k < 8; ++k) {
        const uint32_t levels = tcq_natural_levels<T>(l, k);
        const int      first  = k*T::n_bytes + 4*word;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int w = (int8_t) (levels >> 8*i);
#pragma unroll
            for (int slot = 0; slot < T::n_slots; ++slot) {
                w += slot_position[slot] == first + i ? slot_value[slot] : 0;
            }
            y[first + i] = ggml_cuda_cast<dst_t>(d*w);
        }
    }
}

template <ggml_type type, typename dst_t>
static __global__ void tcq_dequantize(const uint8_t * __restrict__ x, dst_t * __restrict__ y, const int64_t n_blocks) {
    using T = tcq_traits<type>;
    tcq_init_levels<type>();

    const int64_t i  = (int64_t) blockIdx.x*blockDim.x + threadIdx.x;
    const int64_t ib = i/T::n_words;
    if (ib < n_blocks) {
        tcq_dequantize_word<type>(x + ib*T::type_size, i%T::n_words, y + ib*T::block_size);
    }
}

template <ggml_type type, typename dst_t>
static void tcq_dequantize_cuda(const void * x, dst_t * y, const int64_t k, cudaStream_t stream) {
    using T = tcq_traits<type>;
    const int64_t n_blocks = k/T::block_size;
    const int64_t n_grid   = (n_blocks*T::n_words + CUDA_DEQUANTIZE_BLOCK_SIZE - 1)/CUDA_DEQUANTIZE_BLOCK_SIZE;
    tcq_dequantize<type><<<n_grid, CUDA_DEQUANTIZE_BLOCK_SIZE, 0, stream>>>((const uint8_t *) x, y, n_blocks);
}

// strides s01, s02, s03 in blocks; y is contiguous
template <ggml_type type, typename dst_t>
static __global__ void tcq_dequantize_nc(
        const uint8_t * __restrict__ x, dst_t * __restrict__ y, const int64_t ne00, const int64_t ne01,
        const int64_t ne02, const int64_t ne03, const int64_t s01, const int64_t s02, const int64_t s03) {
    using T = tcq_traits<type>;
    tcq_init_levels<type>();

    const int64_t i  = (int64_t) blockIdx.x*blockDim.x + threadIdx.x;
    const int64_t ib = i/T::n_words;
    if (ib >= ne00/T::block_size) {
        return;
    }
    for (int64_t i0203 = blockIdx.z; i0203 < ne02*ne03; i0203 += gridDim.z) {
        const uint8_t * plane = x + (i0203/ne02*s03 + i0203%ne02*s02)*T::type_size;
        for (int64_t i01 = blockIdx.y; i01 < ne01; i01 += gridDim.y) {
            tcq_dequantize_word<type>(plane + (i01*s01 + ib)*T::type_size, i%T::n_words,
                                      y + (i0203*ne01 + i01)*ne00 + ib*T::block_size);
        }
    }
}

template <ggml_type type, typename dst_t>
static void tcq_dequantize_nc_cuda(
        const void * x, dst_t * y, const int64_t ne00, const int64_t ne01, const int64_t ne02, const int64_t ne03,
        const int64_t s01, const int64_t s02, const int64_t s03, cudaStream_t stream) {
    const int64_t n_grid = (ne00/32 + CUDA_DEQUANTIZE_BLOCK_SIZE - 1)/CUDA_DEQUANTIZE_BLOCK_SIZE;
    const dim3 grid(n_grid, std::min(ne01, (int64_t) UINT16_MAX), std::min(ne02*ne03, (int64_t) UINT16_MAX));
    tcq_dequantize_nc<type><<<grid, CUDA_DEQUANTIZE_BLOCK_SIZE, 0, stream>>>(
        (const uint8_t *) x, y, ne00, ne01, ne02, ne03, s01, s02, s03);
}

template <typename dst_t>
tcq_to_t_cuda_t<dst_t> tcq_get_to_t_cuda(const ggml_type type) {
    switch (type) {
#define TCQ_CASE(name, NAME, qk) case GGML_TYPE_##NAME: return tcq_dequantize_cuda<GGML_TYPE_##NAME, dst_t>;
        TCQ_FOR_EACH_TYPE(TCQ_CASE)
#undef TCQ_CASE
        default: return nullptr;
    }
}

template <typename dst_t>
tcq_to_t_nc_cuda_t<dst_t> tcq_get_to_t_nc_cuda(const ggml_type type) {
    switch (type) {
#define TCQ_CASE(name, NAME, qk) case GGML_TYPE_##NAME: return tcq_dequantize_nc_cuda<GGML_TYPE_##NAME, dst_t>;
        TCQ_FOR_EACH_TYPE(TCQ_CASE)
#undef TCQ_CASE
        default: return nullptr;
    }
}

template tcq_to_t_cuda_t<float>          tcq_get_to_t_cuda   (ggml_type);
template tcq_to_t_cuda_t<half>           tcq_get_to_t_cuda   (ggml_type);
template tcq_to_t_cuda_t<nv_bfloat16>    tcq_get_to_t_cuda   (ggml_type);
template tcq_to_t_nc_cuda_t<float>       tcq_get_to_t_nc_cuda(ggml_type);
template tcq_to_t_nc_cuda_t<half>        tcq_get_to_t_nc_cuda(ggml_type);
template tcq_to_t_nc_cuda_t<nv_bfloat16> tcq_get_to_t_nc_cuda(ggml_type);

// ---------------------------------------------------------------------------------------------------------------
// get_rows

template <ggml_type type, typename dst_t>
static __global__ void tcq_get_rows(
        const uint8_t * __restrict__ src0, const int32_t * __restrict__ src1, dst_t * __restrict__ dst,
        const int64_t ne00, const int64_t ne11, const int64_t ne12, const size_t s1, const size_t s2, const size_t s3,
        const size_t nb01, const size_t nb02, const size_t nb03, const size_t s10, const size_t s11, const size_t s12) {
    using T = tcq_traits<type>;
    tcq_init_levels<type>();
    ggml_cuda_pdl_sync();

    const int64_t i10 = blockIdx.x; // the grid's x, which may be the largest
    for (int64_t z = blockIdx.z; z < ne11*ne12; z += gridDim.z) {
        const int64_t i11 = z/ne12;
        const int64_t i12 = z%ne12;
        const int64_t i01 = src1[i10*s10 + i11*s11 + i12*s12];

        const uint8_t * row = src0 + i01*nb01 + i11*nb02 + i12*nb03;
        dst_t         * y   = dst  + i10*s1   + i11*s2   + i12*s3;
        for (int64_t i = blockIdx.y*blockDim.x + threadIdx.x; i < ne00/32; i += gridDim.y*blockDim.x) {
            const int64_t ib = i/T::n_words;
            tcq_dequantize_word<type>(row + ib*T::type_size, i%T::n_words, y + ib*T::block_size);
        }
    }
}

template <typename dst_t>
void tcq_get_rows_cuda(
        const void * src0_d, const ggml_type src0_type, const int32_t * src1_d, dst_t * dst_d,
        const int64_t ne00, const size_t nb01, const size_t nb02, const size_t nb03,
        const int64_t ne10, const int64_t ne11, const int64_t ne12, const size_t nb10, const size_t nb11, const size_t nb12,
        const size_t nb1, const size_t nb2, const size_t nb3, cudaStream_t stream) {
    constexpr int n_threads = 64;
    const dim3 grid(ne10, std::min((ne00/32 + n_threads - 1)/n_threads, (int64_t) UINT16_MAX),
                    std::min(ne11*ne12, (int64_t) UINT16_MAX));
    switch (src0_type) {
#define TCQ_CASE(name, NAME, qk)                                                                                \
        case GGML_TYPE_##NAME:                                                                                  \
            tcq_get_rows<GGML_TYPE_##NAME><<<grid, n_threads, 0, stream>>>(                                     \
                (const uint8_t *) src0_d, src1_d, dst_d, ne00, ne11, ne12,                                      \
                nb1/sizeof(dst_t), nb2/sizeof(dst_t), nb3/sizeof(dst_t), nb01, nb02, nb03,                      \
                nb10/sizeof(int32_t), nb11/sizeof(int32_t), nb12/sizeof(int32_t));                              \
            break;
        TCQ_FOR_EACH_TYPE(TCQ_CASE)
#undef TCQ_CASE
        default:
            GGML_ABORT("%s: unsupported src0 type: %s\n", __func__, ggml_type_name(src0_type));
    }
}

#define TCQ_INSTANTIATE_GET_ROWS(dst_t)                                                                         \
    template void tcq_get_rows_cuda(                                                                            \
        const void *, ggml_type, const int32_t *, dst_t *, int64_t, size_t, size_t, size_t,                     \
        int64_t, int64_t, int64_t, size_t, size_t, size_t, size_t, size_t, size_t, cudaStream_t);
TCQ_INSTANTIATE_GET_ROWS(float)
TCQ_INSTANTIATE_GET_ROWS(int32_t)
TCQ_INSTANTIATE_GET_ROWS(half)
TCQ_INSTANTIATE_GET_ROWS(nv_bfloat16)

// ---------------------------------------------------------------------------------------------------------------
// activations

// One warp for 256 values: a lane takes the bytes 4*word.. of sub-blocks kk and kk + 4 of one block.
template <typename T>
static __global__ void tcq_quantize_q8(
        const float * __restrict__ x, char * __restrict__ vy, const int64_t ne00, const int64_t s01, const int64_t s02,
        const int64_t s03, const int64_t ne0, const uint32_t ne1, const uint3 ne2) {
    ggml_cuda_pdl_lc();
    constexpr int lanes_per_block = T::block_size/8;

    const int64_t i256 = blockIdx.x*blockDim.y + threadIdx.y;
    if (i256*256 >= ne0) {
        return;
    }
    const int64_t i1 = blockIdx.y;
    const uint2   dm = fast_div_modulo((uint32_t) blockIdx.z, ne2);
    const int64_t i2 = dm.y;
    const int64_t i3 = dm.x;

    const int ib   = threadIdx.x/lanes_per_block; // block in the 256
    const int word = threadIdx.x%lanes_per_block%T::n_words;
    const int kk   = threadIdx.x%lanes_per_block/T::n_words;

    ggml_cuda_pdl_sync();
    const float * row = x + i3*s03 + i2*s02 + i1*s01;

    float v[2][4];
    float amax = 0.0f;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
        const int64_t i0 = i256*256 + ib*T::block_size + (kk + 4*p)*T::n_bytes + 4*word;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            v[p][i] = i0 + i < ne00 ? row[i0 + i] : 0.0f;
            amax = fmaxf(amax, fabsf(v[p][i]));
        }
    }
#pragma unroll
    for (int offset = lanes_per_block/2; offset > 0; offset >>= 1) {
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffff, amax, offset, 32));
    }

    const float d = amax/127.0f;
    int8_t q[8]; // [h][i][p]
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            q[2*i + p] = amax == 0.0f ? 0 : roundf(v[p][i]/d);
        }
    }

    const int64_t row_y = (i3*ne2.z + i2)*ne1 + i1;
    char * y = vy + (row_y*ne0 + i256*256)/QK8_1*sizeof(block_q8_1) + ib*(T::block_size/QK8_1*sizeof(block_q8_1));
    *(int2 *) (y + tcq_q8_offset<T>(kk*T::n_bytes + 4*word)) = *(const int2 *) q;
    if (threadIdx.x%lanes_per_block == 0) {
        *(float *) (y + T::block_size) = d;
    }
}

void tcq_quantize_row_q8_cuda(
        const float * x, void * vy, const ggml_type type_src0,
        const int64_t ne00, const int64_t s01, const int64_t s02, const int64_t s03,
        const int64_t ne0, const int64_t ne1, const int64_t ne2, const int64_t ne3, cudaStream_t stream) {
    GGML_ASSERT(ne0 % 256 == 0);

    constexpr int n_warps = 4;
    const uint3 ne2_fd = init_fastdiv_values(ne2);
    const dim3 grid((ne0/256 + n_warps - 1)/n_warps, ne1, ne2*ne3);
    const ggml_cuda_kernel_launch_params params(grid, dim3(32, n_warps), 0, stream);

    // the order of activations depends on the block size alone
    if (ggml_blck_size(type_src0) == QK_TCQ) {
        ggml_cuda_kernel_launch(tcq_quantize_q8<tcq_traits<GGML_TYPE_TCQ1>>,    params,
            x, (char *) vy, ne00, s01, s02, s03, ne0, (uint32_t) ne1, ne2_fd);
    } else {
        ggml_cuda_kernel_launch(tcq_quantize_q8<tcq_traits<GGML_TYPE_TCQ1_64>>, params,
            x, (char *) vy, ne00, s01, s02, s03, ne0, (uint32_t) ne1, ne2_fd);
    }
}
