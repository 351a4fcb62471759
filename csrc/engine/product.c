#include "engine/product.h"

#include "engine/batch_in_lanes.h"
#include "engine/choose.h"
#include "engine/sizes.h"
#include "engine/threads.h"
#include "engine/tiles.h"
#include "engine/unpacked.h"

/* The kernels for `p`.  Packed weights run on the kernels that they were packed for. */
static const struct kernels *kernels_for(const struct call *call, const struct product *p) {
  const struct packed_weights *packed = p->right.packed;
  if (packed && !packed->tier_panels) return call->kernels;
  const struct product_sizes sizes = {p->rows, p->depth, p->columns, p->pieces};
  return tier_kernels(call, &sizes);
}

int run_product(const struct call *call, const struct product *p) {
  if (p->rows == 0 || p->columns == 0) return FA_OK;
  int threads = threads_for(call->threads, ceil_div(p->rows, 4) * p->columns * p->pieces * (p->depth + 1));
  const struct packed_weights *packed = p->right.packed;
  if (packed && !packed->panels && !packed->tier_panels) return run_unpacked(call, p, threads); /* x is dense */
  struct product whole = *p;
  whole.rows = larger(p->rows, call->batch);
  const struct kernels *kernels = kernels_for(call, &whole);
  int64_t tail;
  switch (quickest_way(&whole, kernels, has_one_order(call), &tail)) {
  case UNPACKED: return run_unpacked(call, p, threads);
  case BATCH_IN_LANES: return run_batch_in_lanes(call, p, smaller(tail, p->rows % kernels->lanes), threads);
  default: return run_tiles(call, p, kernels, WORKSPACE_DRIVER, threads);
  }
}
