/* A product on unpacked weights, for few rows or few columns. */
#ifndef FA_ENGINE_UNPACKED_H
#define FA_ENGINE_UNPACKED_H

#include "engine/plan.h"

/* Bytes that multiply_unpacked needs at `memory` for this many rows. */
size_t unpacked_bytes(const struct kernels *kernels, int64_t rows, int panel_vectors);

/* Computes the columns of one panel for some rows, and stores them as p->epilogue says: by dot products, or with a
 * `cut` by micro-tiles, which cut their sums there. */
void multiply_unpacked(const struct product *p, const struct kernels *kernels, int64_t row, int64_t rows,
                       const struct panel *panel, int64_t cut, char *memory);

/* Runs `p` on the call's vector unit; its source is dense, and its depth contiguous in both operands. */
int run_unpacked(const struct call *call, const struct product *p, int threads);

#endif
