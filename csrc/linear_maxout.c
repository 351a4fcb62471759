#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "fastact_abi.h"
#include "product.h"
#include "threads.h"

#define REAL_BITS 32
#include "linear_maxout.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "linear_maxout.c"
#else
#include "real.h"

/* y and argmax of one output for one row, from its pieces' sums `sum_stride` apart */
static void REAL(finish_group)(int64_t pieces, const real *sums, int64_t sum_stride, const real *bias, real *y,
                               uint8_t *argmax) {
  real best = sums[0] + (bias ? bias[0] : 0);
  int64_t index = 0;
  for (int64_t k = 1; k < pieces; k++) {
    real z = sums[k * sum_stride] + (bias ? bias[k] : 0);
    if (best == best && !(z <= best)) { /* larger, or the first NaN */
      best = z;
      index = k;
    }
  }
  *y = best;
  if (argmax) *argmax = (uint8_t)index;
}

/* A few rows, straight from the weights' own layout. */
static void REAL(few_rows)(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const real *x,
                           const real *weight, const real *bias, real *y, uint8_t *argmax, int threads) {
  const struct REAL(kernels) *kernels = isa_active()->REAL(kernels);
  threads = threads_for(threads, out_features * pieces * (in_features + 1));
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t j = 0; j < out_features; j++) {
    real sums[256 * MAX_DOT_ROWS]; /* [pieces][rows] */
    kernels->dots(rows, pieces, in_features, x, weight + j * pieces * in_features, sums);
    for (int64_t n = 0; n < rows; n++)
      REAL(finish_group)(pieces, sums + n, rows, bias ? bias + j * pieces : NULL, y + n * out_features + j,
                         argmax ? argmax + n * out_features + j : NULL);
  }
}

int REAL(fa_linear_maxout)(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const real *x,
                           const real *weight, const real *bias, real *y, uint8_t *argmax, int threads,
                           int precision) {
  (void)precision; /* the float32 kernels serve every tier */
  if (rows <= MAX_DOT_ROWS) {
    REAL(few_rows)(rows, in_features, out_features, pieces, x, weight, bias, y, argmax, threads);
    return FA_OK;
  }
  if (pieces == 1 && argmax) memset(argmax, 0, (size_t)(rows * out_features));
  return REAL(product)(
      &(struct REAL(product)){
          .rows = rows,
          .depth = in_features,
          .columns = out_features,
          .pieces = (int)pieces,
          .left = x,
          .left_row_stride = in_features,
          .left_depth_stride = 1,
          .right = weight,
          .right_column_stride = pieces * in_features,
          .right_depth_stride = 1,
          .right_piece_stride = in_features,
          .bias = bias,
          .y = y,
          .argmax = argmax,
      },
      threads);
}

#endif
