/* Cache sizes and costs of the AVX-512 kernels, fitted to Zen 5, one thread.  struct tuning in kernels/vtable.h says
 * what each number is. */
#ifndef FA_AVX512_TUNING_H
#define FA_AVX512_TUNING_H

#include "kernels/vtable.h"

/* A set of L1 has 8 lines or more.  bench/tuning: conflicting-rows */
#define MAX_CONFLICTING_ROWS 8

/* Tables differ in the L2 that a product is blocked for, and in the time of one term in a full micro-tile. */
#define TUNING(blocked_l2_bytes, term)                                                                                 \
  {                                                                                                                    \
      .l1_bytes = 32 << 10,                                                                                            \
      .l2_bytes = (blocked_l2_bytes),                                                                                  \
      .l1_way_bytes = 4096,                                                                                            \
      .conflicting_rows = MAX_CONFLICTING_ROWS,                                                                        \
      .tile_term = (term), /* bench/tuning: tile-tenths */                                                             \
      .tile_end = 20,                                                                                                  \
      .dot_term_l1 = 11, /* bench/tuning: dots-cost */                                                                 \
      .dot_term_l2 = 14,                                                                                               \
      .dot_term = 20,                                                                                                  \
      .dot_end = 50,                                                                                                   \
      .pack_term = 7,                                                                                                  \
      .pack_edge = 400,                                                                                                \
      .batch_term = 10, /* bench/tuning: batch-cost */                                                                 \
      .batch_term_single = 12,                                                                                         \
      .batch_end = 40,                                                                                                 \
      .batch_unit = 80,                                                                                                \
      .batch_row = 8000,                                                                                               \
      .batch_packed_bytes = 512 << 10,                                                                                 \
      .gather_term = 14, /* bench/tuning: dense-backward */                                                            \
      .pack_unit = 280,                                                                                                \
  }

static const struct tuning tuning = TUNING(1 << 20, 10);
static const struct tuning tuning_bf16 = TUNING(1 << 20, 5);

#endif
