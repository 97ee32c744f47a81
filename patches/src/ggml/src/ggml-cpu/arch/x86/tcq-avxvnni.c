#include "tcq-kernels.h"

#if defined(TCQ_X86)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,gfni,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,gfni,avxvnni,no-avx512f")
#endif

#define TCQ_ISA  avxvnni
#define TCQ_GFNI 1
#define TCQ_VNNI 1
#include "tcq-256.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
