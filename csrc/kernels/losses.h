/* Losses over arrays: each element is read once. */
#ifndef FA_LOSSES_H
#define FA_LOSSES_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/rest.h"

/* grad = scale (y - target) over arrays of n; returns the sum of the squares of y - target.  Four accumulators hide the
 * latency of the FMA unit. */
static double mse(int64_t n, double scale, const void *y, const void *target, void *grad) {
  const real *outputs = y, *targets = target;
  real *grads = grad;
  vec sums[4] = {vec_set1(0), vec_set1(0), vec_set1(0), vec_set1(0)};
  const vec factor = vec_set1((real)scale);
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int s = 0; s < 4; s++) {
      vec off = vec_sub(vec_load(outputs + i + s * LANES), vec_load(targets + i + s * LANES));
      sums[s] = vec_fma(off, off, sums[s]);
      vec_store(grads + i + s * LANES, vec_mul(factor, off));
    }
  for (; i < n; i += LANES) {
    int64_t count = n - i < LANES ? n - i : LANES;
    vec off = vec_sub(load_rest(outputs + i, count), load_rest(targets + i, count));
    sums[0] = vec_fma(off, off, sums[0]);
    store_rest(grads + i, vec_mul(factor, off), count);
  }
  return (double)vec_sum(vec_add(vec_add(sums[0], sums[1]), vec_add(sums[2], sums[3])));
}

#endif
