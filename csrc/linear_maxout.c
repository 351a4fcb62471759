#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "fastact_abi.h"
#include "product.h"

#define REAL_BITS 32
#include "linear_maxout.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "linear_maxout.c"
#else
#include "real.h"

int REAL(fa_linear_maxout)(int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const real *x,
                           const real *weight, const real *bias, real *y, uint8_t *argmax, int threads, int precision) {
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
          .precision = precision,
      },
      threads);
}

#endif
