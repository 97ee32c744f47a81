// As much of CUDA and of ggml-cuda's common.cuh as TCQ's kernels use, on the CPU: a thread block at a time, its threads
// as coroutines that yield at barriers and shuffles.

#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml.h"

#include <ucontext.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __isShared(p) ((void) (p), true)
#define __builtin_assume(condition) ((void) (condition))
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_ARCH__ 900

#define GGML_CUDA_RESTRICT
#define GGML_CUDA_CC_DP4A   610
#define GGML_CUDA_CC_HOPPER 900
#define MATRIX_ROW_PADDING  512

struct uint2 { uint32_t x, y; };
struct uint3 { uint32_t x, y, z; };
struct int2  { int32_t x, y; };
struct int4  { int32_t x, y, z, w; };
struct dim3 {
    uint32_t x, y, z;
    dim3(uint32_t x = 1, uint32_t y = 1, uint32_t z = 1) : x(x), y(y), z(z) {}
};
struct half        { float value; };
struct nv_bfloat16 { float value; };
typedef void * cudaStream_t;

static dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---------------------------------------------------------------------------------------------------------------
// threads

enum emulated_state { EMULATED_RUNS, EMULATED_AT_BARRIER, EMULATED_AT_SHUFFLE, EMULATED_DONE };

struct emulated_thread {
    ucontext_t              context;
    std::unique_ptr<char[]> stack;
    emulated_state          state;
    uint32_t                offered;  // by this lane to a shuffle
    uint32_t                received[32];
};

static std::vector<emulated_thread> emulated_threads;
static size_t                       emulated_current;
static ucontext_t                   emulated_scheduler;
static const std::function<void()> * emulated_kernel;
static bool                         emulated_reversed; // the last thread first: what depends on the order lacks a barrier

static void emulated_wait(emulated_state state) {
    emulated_thread & t = emulated_threads[emulated_current];
    t.state = state;
    swapcontext(&t.context, &emulated_scheduler);
}

static void emulated_main() {
    (*emulated_kernel)();
    emulated_wait(EMULATED_DONE);
}

// lets threads [first, last) that wait alike go on, if all that are not done wait so
static bool emulated_release(size_t first, size_t last, emulated_state state) {
    bool any = false;
    for (size_t i = first; i < last; ++i) {
        if (emulated_threads[i].state != state && emulated_threads[i].state != EMULATED_DONE) {
            return false;
        }
        any = any || emulated_threads[i].state == state;
    }
    for (size_t i = first; i < last && any; ++i) {
        if (emulated_threads[i].state == state) {
            emulated_threads[i].state = EMULATED_RUNS;
            for (size_t lane = first; lane < last && state == EMULATED_AT_SHUFFLE; ++lane) {
                emulated_threads[i].received[lane - first] = emulated_threads[lane].offered;
            }
        }
    }
    return any;
}

static void emulated_run_block() {
    const size_t n = blockDim.x*blockDim.y*blockDim.z;
    emulated_threads.resize(n);
    for (emulated_thread & t : emulated_threads) {
        if (!t.stack) {
            t.stack.reset(new char[1 << 16]);
        }
        getcontext(&t.context);
        t.context.uc_stack.ss_sp   = t.stack.get();
        t.context.uc_stack.ss_size = 1 << 16;
        t.context.uc_link          = nullptr;
        t.state = EMULATED_RUNS;
        makecontext(&t.context, emulated_main, 0);
    }
    for (bool all_done = false; !all_done;) {
        bool moved = false;
        all_done = true;
        for (size_t k = 0; k < n; ++k) {
            const size_t i = emulated_reversed ? n - 1 - k : k;
            if (emulated_threads[i].state == EMULATED_RUNS) {
                emulated_current = i;
                threadIdx = dim3(i % blockDim.x, i/blockDim.x % blockDim.y, i/blockDim.x/blockDim.y);
                swapcontext(&emulated_scheduler, &emulated_threads[i].context);
                moved = true;
            }
            all_done = all_done && emulated_threads[i].state == EMULATED_DONE;
        }
        for (size_t warp = 0; warp < n; warp += 32) {
            moved = emulated_release(warp, std::min(n, warp + 32), EMULATED_AT_SHUFFLE) || moved;
        }
        moved = emulated_release(0, n, EMULATED_AT_BARRIER) || moved;
        if (!moved && !all_done) {
            fprintf(stderr, "deadlock: threads wait for each other at different places\n");
            abort();
        }
    }
}

static void emulate(dim3 grid, dim3 block, const std::function<void()> & kernel) {
    gridDim  = grid;
    blockDim = block;
    emulated_kernel = &kernel;
    for (uint32_t z = 0; z < grid.z; ++z) {
        for (uint32_t y = 0; y < grid.y; ++y) {
            for (uint32_t x = 0; x < grid.x; ++x) {
                blockIdx = dim3(x, y, z);
                emulated_run_block();
            }
        }
    }
}

static void __syncthreads() {
    emulated_wait(EMULATED_AT_BARRIER);
}

template <typename T>
static T emulated_exchange(uint32_t mask, T value, int source) {
    static_assert(sizeof(T) == 4, "a word");
    assert(mask == 0xffffffff);
    emulated_thread & t = emulated_threads[emulated_current];
    memcpy(&t.offered, &value, 4);
    emulated_wait(EMULATED_AT_SHUFFLE);
    memcpy(&value, &emulated_threads[emulated_current].received[source], 4);
    return value;
}

template <typename T>
static T __shfl_sync(uint32_t mask, T value, int lane, int width = 32) {
    const int own = emulated_current % 32;
    return emulated_exchange(mask, value, own/width*width + lane%width);
}

template <typename T>
static T __shfl_xor_sync(uint32_t mask, T value, int offset, int width = 32) {
    const int own = emulated_current % 32;
    assert((own ^ offset)/width == own/width);
    return emulated_exchange(mask, value, own ^ offset);
}

static uint32_t __ballot_sync(uint32_t mask, bool vote) {
    emulated_exchange(mask, (uint32_t) vote, 0);
    uint32_t votes = 0;
    for (int lane = 0; lane < 32; ++lane) {
        votes |= emulated_threads[emulated_current].received[lane] << lane;
    }
    return votes;
}

// ---------------------------------------------------------------------------------------------------------------
// instructions

template <typename T> static T min(T a, T b) { return b < a ? b : a; }

static uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t n) {
    return (uint32_t) (((uint64_t) high << 32 | low) << (n & 31) >> 32);
}

static uint32_t ptx_prmt_b32(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = (uint64_t) b << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t nibble = selector >> 4*i & 0xf;
        const uint8_t  byte   = bytes >> 8*(nibble & 7);
        r |= (uint32_t) (uint8_t) (nibble & 8 ? (byte & 0x80 ? 0xff : 0x00) : byte) << 8*i;
    }
    return r;
}

static uint32_t ptx_lop3_b32(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t r = 0;
    for (int i = 0; i < 32; ++i) {
        r |= (table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i;
    }
    return r;
}

static uint32_t ptx_and_b32(uint32_t a, uint32_t b)                 { return a & b; }
static uint32_t ptx_mad_lo_u32(uint32_t a, uint32_t b, uint32_t c)  { return a*b + c; }
static float    ptx_mul_f32(float a, float b)                       { return a*b; }
static void     ptx_prefetch_global_L2(const void *)                { }

static float    ptx_add_rn_f32(float a, float b)                    { return a + b; }
static float    ptx_sub_rn_f32(float a, float b)                    { return a - b; }
static float    ptx_mul_rn_f32(float a, float b)                    { return a*b; }
static float    ptx_div_rn_f32(float a, float b)                    { return a/b; }
static float    ptx_sqrt_rn_f32(float a)                            { return sqrtf(a); }

static void atomicMin(uint32_t * p, uint32_t value)                 { *p = std::min(*p, value); }
static void atomicOr (uint32_t * p, uint32_t value)                 { *p |= value; }

static uint32_t ptx_dp4a_u32_u32(uint32_t a, uint32_t b, uint32_t c) {
    for (int i = 0; i < 32; i += 8) {
        c += (a >> i & 0xff)*(b >> i & 0xff);
    }
    return c;
}

static uint32_t __vsub4(uint32_t a, uint32_t b) {
    uint32_t r = 0;
    for (int i = 0; i < 32; i += 8) {
        r |= (uint32_t) (uint8_t) ((a >> i) - (b >> i)) << i;
    }
    return r;
}

static int ggml_cuda_dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) {
        c += (int8_t) (a >> i)*(int8_t) (b >> i);
    }
    return c;
}

static float __uint_as_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

// addresses of shared memory: of one variable, which lies at 0x400 as on a GPU
static const char * emulated_shared;

static size_t __cvta_generic_to_shared(const void * p) {
    emulated_shared = (const char *) p;
    return 0x400;
}

static uint32_t ptx_ld_shared_u8(uint32_t address) {
    return (uint8_t) emulated_shared[address - 0x400];
}

// ---------------------------------------------------------------------------------------------------------------
// common.cuh

template <ggml_type type> struct ggml_cuda_type_traits;

struct ggml_cuda_mm_fusion_args_device {
    const void * x_bias    = nullptr;
    const void * gate      = nullptr;
    const void * gate_bias = nullptr;
    ggml_glu_op  glu_op    = GGML_GLU_OP_SWIGLU;
    float        glu_limit = 0.0f;
};

struct ggml_cuda_kernel_launch_params {
    dim3 grid, block;
    ggml_cuda_kernel_launch_params(dim3 grid, dim3 block, size_t, cudaStream_t) : grid(grid), block(block) {}
};

template <typename... P, typename... A>
static void ggml_cuda_kernel_launch(void (*kernel)(P...), const ggml_cuda_kernel_launch_params & params, A... args) {
    emulate(params.grid, params.block, [&] { kernel(args...); });
}

static void ggml_cuda_pdl_sync() {}
static void ggml_cuda_pdl_lc() {}

static uint3    init_fastdiv_values(uint32_t d)           { return { 0, 0, d }; }
static uint32_t fastdiv(uint32_t n, uint3 d)              { return n/d.z; }
static uint32_t fastmodulo(uint32_t n, uint3 d)           { return n%d.z; }
static uint2    fast_div_modulo(uint32_t n, uint3 d)      { return { n/d.z, n%d.z }; }

static bool turing_mma_available(int) { return true; }

template <int width>
static float warp_reduce_sum(float x) {
    for (int offset = width/2; offset > 0; offset >>= 1) {
        x += __shfl_xor_sync(0xffffffff, x, offset, width);
    }
    return x;
}
