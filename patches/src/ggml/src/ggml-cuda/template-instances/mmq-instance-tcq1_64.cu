#include "../mmq.cuh"

DECL_MMQ_CASE(GGML_TYPE_TCQ1_64);
