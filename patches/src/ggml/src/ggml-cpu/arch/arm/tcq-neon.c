#include "tcq-kernels.h"

#if defined(TCQ_ARM)

#define TCQ_ISA     neon
#define TCQ_DOTPROD 0
#define TCQ_I8MM    0
#include "tcq-128.h"

#endif
