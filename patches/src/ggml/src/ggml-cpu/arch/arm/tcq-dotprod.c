#include "tcq-kernels.h"

#if defined(TCQ_ARM)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#define TCQ_ISA     dotprod
#define TCQ_DOTPROD 1
#define TCQ_I8MM    0
#include "tcq-128.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
