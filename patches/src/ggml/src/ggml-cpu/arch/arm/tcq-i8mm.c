#include "tcq-kernels.h"

#if defined(TCQ_ARM)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif

#define TCQ_ISA     i8mm
#define TCQ_DOTPROD 1
#define TCQ_I8MM    1
#include "tcq-128.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
