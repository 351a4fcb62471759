/* A product as dot products on unpacked weights: used for few rows or few columns. */
#ifndef FA_ENGINE_DOTS_H
#define FA_ENGINE_DOTS_H

#include "engine/plan.h"

/* Bytes that multiply_dots needs at `memory` for this many rows. */
size_t dots_bytes(const struct kernels *kernels, int64_t rows, int panel_vectors);

/* Computes the columns of one panel for some rows, and stores them as p->epilogue says. */
void multiply_dots(const struct product *p, const struct kernels *kernels, int64_t row, int64_t rows,
                   const struct panel *panel, char *memory);

/* Runs `p` on the call's vector unit; its source is dense, and its depth contiguous in both operands. */
int run_dots(const struct call *call, const struct product *p, int threads);

#endif
