/* Losses over arrays: each element is read once. */
#ifndef FA_LOSSES_H
#define FA_LOSSES_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/rest.h"

/* Elements whose squares are added in the array's type: 16 to a lane of AVX-512 float32.  The sums of blocks are added
 * in double. */
#define SQUARES_BLOCK 1024

/* grads (n) = factor (outputs - targets); returns the sum of the squares of outputs - targets.  Four accumulators hide
 * the latency of the FMA unit. */
static double square_block(int64_t n, vec factor, const real *outputs, const real *targets, real *grads) {
  vec sums[4] = {vec_set1(0), vec_set1(0), vec_set1(0), vec_set1(0)};
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

static double mse(const struct pairs *p) {
  const vec factor = vec_set1((real)(2 * p->scale));
  double sum = 0;
  for (int64_t i = 0; i < p->n; i += SQUARES_BLOCK) {
    int64_t n = p->n - i < SQUARES_BLOCK ? p->n - i : SQUARES_BLOCK;
    sum += square_block(n, factor, (const real *)p->y + i, (const real *)p->target + i, (real *)p->grad + i);
  }
  return sum;
}

#endif
