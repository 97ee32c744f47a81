// What TCQ's sources take from ggml.c, for test programs of which that is no part.

#pragma once

#include "ggml-impl.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

void ggml_abort(const char * file, int line, const char * format, ...) {
    fprintf(stderr, "%s:%d: %s\n", file, line, format);
    abort();
}

void * ggml_aligned_malloc(size_t size) {
    return aligned_alloc(64, (size + 63)/64*64);
}

void ggml_aligned_free(void * ptr, size_t size) {
    (void) size;
    free(ptr);
}

#ifdef __cplusplus
}
#endif
