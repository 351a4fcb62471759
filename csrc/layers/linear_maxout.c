#include <string.h>

#include "engine/product.h"

int fa_linear_maxout(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const void *x,
                     const void *weight, const void *bias, void *y, uint8_t *argmax, int threads, int precision) {
  const struct call call = begin_call(dtype, precision, threads);
  const struct source left = dense_source(x, in_features, 1);
  if (pieces == 1 && argmax) memset(argmax, 0, (size_t)(rows * out_features));
  const struct product product = {
      .rows = rows,
      .depth = in_features,
      .columns = out_features,
      .pieces = (int)pieces,
      .left = &left,
      .right = {.data = weight,
                .column_stride = pieces * in_features,
                .depth_stride = 1,
                .piece_stride = in_features,
                .bias = bias},
      .epilogue = {.y = y, .argmax = argmax, .y_stride = out_features},
  };
  return end_call(run_product(&call, &product));
}
