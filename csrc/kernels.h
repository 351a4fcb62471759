/* What a driver asks of an ISA: one table of kernels for float32 and one for float64.
 *
 * Kernels are serial, allocate nothing and know nothing of Python.  A new ISA is one more pair of tables. */
#ifndef FA_KERNELS_H
#define FA_KERNELS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "argmax.h"
#include "fastact_abi.h"

/* float32 sums are cut into runs of this many terms, and the partial sums added: one accumulator over a depth of
 * 4096 has 3 to 8 times the error of NumPy's product, runs of 256 have 0.6 to 0.9 times. */
#define DEPTH_CUT 256

/* The most vectors and rows of a tile, the most rows of one whose sums are in registers, and the most sums of that. */
#define MAX_TILE_VECTORS 5
#define MAX_TILE_ROWS 32
#define MAX_REGISTER_ROWS 12
#define MAX_TILE_SUMS 25

/* Rows of the table that a sum over winners gathers from, at the most columns that it takes: 40 KiB of L1 with AVX-512,
 * 24 with AVX2. */
#define TABLE_ROWS 64

/* The most vectors that a sum over winners keeps in registers: 8 to 12 hide the latency of the FMA unit. */
#define MAX_WINNER_VECTORS 12

/* An argmax is one byte. */
#define MAX_PIECES 256

#define REAL_BITS 32
#include "kernels/table.inc.h"
#undef REAL_BITS
#define REAL_BITS 64
#include "kernels/table.inc.h"
#undef REAL_BITS

/* The activations over arrays of floats that are computed in lanes of doubles. */
struct smooth {
  void (*forward)(int activation, double parameter, const float *z, float *y, int64_t n);
  void (*backward)(int activation, double parameter, const float *grad_y, const float *z, float *grad_z, int64_t n);
};

/* (rows, depth) @ (depth, columns * pieces) */
struct product_sizes {
  int64_t rows, depth, columns, pieces;
};

struct isa {
  const char *name;
  int (*supported)(void); /* by this CPU and its operating system */
  const struct kernels_f32 *kernels_f32;
  const struct kernels_f64 *kernels_f64;
  /* What a product runs on at an enum fa_precision where that is not kernels_f32, else NULL; or NULL */
  const struct kernels_f32 *(*tier)(int precision, const struct product_sizes *);
};

/* The ISA in force. */
const struct isa *isa_active(void);

/* The kernels that such a product runs on at a tier, an enum fa_precision. */
const struct kernels_f32 *isa_tier_f32(const struct isa *, int precision, const struct product_sizes *);
const struct kernels_f64 *isa_tier_f64(const struct isa *, int precision, const struct product_sizes *);

#endif
