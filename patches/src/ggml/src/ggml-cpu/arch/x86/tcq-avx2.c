#include "tcq-kernels.h"

#if defined(TCQ_X86)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,no-avx512f")
#endif

#define TCQ_ISA  avx2
#define TCQ_GFNI 0
#define TCQ_VNNI 0
#include "tcq-256.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
