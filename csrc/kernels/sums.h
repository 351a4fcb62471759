/* Plain sums and products of arrays, and sums over rows. */
#ifndef FA_SUMS_H
#define FA_SUMS_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/rest.h"

/* sums (n) += terms (n) */
static void add(int64_t n, const void *terms, void *sums) {
  const real *from = terms;
  real *to = sums;
  for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

/* to (n) = factor x, or added to it; `factor` points to one element */
static void scale(int64_t n, const void *factor, const void *x, int accumulate, void *to) {
  const real *from = x;
  real *sum = to;
  const vec f = vec_set1(*(const real *)factor), zero = vec_set1(0);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec product = vec_fma(f, vec_load(from + i), zero);
    vec_store(sum + i, accumulate ? vec_add(vec_load(sum + i), product) : product);
  }
  if (i < n) {
    vec product = vec_fma(f, load_rest(from + i, n - i), zero);
    store_rest(sum + i, accumulate ? vec_add(load_rest(sum + i, n - i), product) : product, n - i);
  }
}

/* y += alpha x, of n elements, x_step and y_step apart */
static void axpy(int n, real alpha, const real *x, int x_step, real *y, int y_step) {
  if (x_step == 1 && y_step == 1) {
    const vec factor = vec_set1(alpha);
    int i = 0;
    for (; i + LANES <= n; i += LANES) vec_store(y + i, vec_fma(factor, vec_load(x + i), vec_load(y + i)));
    if (i < n)
      vec_store_first(y + i, vec_fma(factor, vec_load_first(x + i, n - i), vec_load_first(y + i, n - i)), n - i);
    return;
  }
  for (int64_t i = 0; i < n; i++) y[i * y_step] += alpha * x[i * x_step];
}

/* y (n) = x keep factor, where keep is 0 or 1: the product with 0 of an infinity is NaN, and of -1 it is -0 */
static void dropout(int64_t n, double factor, const uint8_t *keep, const void *x, void *y) {
  const real *from = x;
  real *to = y;
  const real kept = (real)factor;
  for (int64_t i = 0; i < n; i++) to[i] = from[i] * (real)keep[i] * kept;
}

/* sums (columns) = the sums over the rows of x (rows, columns), `stride` apart */
static void sum_columns(int64_t rows, int64_t columns, int64_t stride, const void *x, void *sums) {
  const real *row = x;
  real *to = sums;
  memset(to, 0, (size_t)columns * sizeof(real));
  for (int64_t r = 0; r < rows; r++, row += stride)
    for (int64_t j = 0; j < columns; j++) to[j] += row[j];
}

/* grad_slope (slopes) = the sums of partial (cuts, width) over the cuts, and over columns `slopes` apart, added in
 * double; or added to grad_slope */
static void sum_slopes(int64_t cuts, int64_t width, const void *partial, int64_t slopes, int accumulate,
                       void *grad_slope) {
  const real *from = partial;
  real *to = grad_slope;
  for (int64_t j = 0; j < slopes; j++) {
    double total = 0;
    for (int64_t column = j; column < width; column += slopes)
      for (int64_t cut = 0; cut < cuts; cut++) total += (double)from[cut * width + column];
    to[j] = (real)total + (accumulate ? to[j] : 0);
  }
}

#endif
