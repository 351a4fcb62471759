/* Which ISA runs, and what a product runs on at a precision tier. */
#ifndef FA_DISPATCH_H
#define FA_DISPATCH_H

#include "api/abi.h"
#include "kernels/vtable.h"

/* A product (rows, depth) @ (depth, columns * pieces). */
struct product_sizes {
  int64_t rows, depth, columns, pieces;
};

struct isa {
  const char *name;
  int (*supported)(void);           /* by this CPU and its operating system */
  const struct kernels *kernels[2]; /* by enum fa_dtype */
  /* The kernels of a float32 product at an enum fa_precision if they are not kernels[FA_FLOAT32], else NULL.  An ISA
   * without tiers has no such function. */
  const struct kernels *(*tier)(int precision, const struct product_sizes *);
  /* What runs in its place where results are to be reproducible: kernels with AVX-512's lanes, formulas and tuning,
   * whose products have one order of summation.  NULL for such an ISA itself. */
  const struct isa *reproducible;
};

/* How one call into the library runs.  The ISA in force is read once, when the call begins. */
struct call {
  const struct isa *isa;
  const struct kernels *kernels; /* those of the ISA's vector unit for the call's dtype */
  int dtype;                     /* enum fa_dtype */
  int precision;                 /* enum fa_precision */
  int threads;                   /* requested, perhaps with FA_REPRODUCIBLE; 0 for fa_max_threads() */
  /* Rows of the whole of which a product computes a part: all parts run the same way, as the whole would.  Boundaries
   * of parts are multiples of PACK_ROWS and of the lanes.  0: the product is the whole. */
  int64_t batch;
};

/* A call on the ISA in force, and one on a given ISA, which FA_REPRODUCIBLE in `threads` does not change. */
struct call begin_call(int dtype, int precision, int threads);
struct call call_on(const struct isa *isa, int dtype, int precision, int threads);

/* Whether each product of the call sums in the order of micro-tiles, whatever the number of rows. */
static inline int has_one_order(const struct call *call) { return !call->isa->reproducible; }

/* Ends a call that used the workspace, of which the thread keeps a bounded part.  Returns `status`. */
int end_call(int status);

/* The kernels that a product of these sizes runs on; float64 has no tiers. */
const struct kernels *tier_kernels(const struct call *call, const struct product_sizes *sizes);

#endif
