#include "layers/maxout_backward.h"

#include "engine/product.h"
#include "layers/argmax.h"
#include "layers/grad_bias.h"

int fa_linear_maxout_backward(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                              const void *grad_y, const void *x, const void *weight, const uint8_t *argmax,
                              void *grad_x, void *grad_weight, void *grad_bias, int accumulate, int threads,
                              int precision) {
  if (!argmax_fits(rows * out_features, argmax, pieces)) return FA_BAD_ARGMAX;
  const struct call call = begin_call(dtype, precision, threads);
  const struct maxout_backward b = {
      .call = &call,
      .rows = rows,
      .in_features = in_features,
      .out_features = out_features,
      .pieces = pieces,
      .grad_y = grad_y,
      .x = x,
      .weight = weight,
      .argmax = argmax,
      .grad_x = grad_x,
      .grad_weight = grad_weight,
      .accumulate = accumulate,
  };
  int64_t units = out_features * pieces;
  int status = FA_OK;
  if (grad_x) {
    status = dense_is_quicker(&b, rows, units) ? dense_grad_x(&b) : PRODUCT_NOT_REPRESENTABLE;
    if (status == PRODUCT_NOT_REPRESENTABLE) status = gather_grad_x(&b);
  }
  if (grad_weight && status == FA_OK) {
    status = dense_is_quicker(&b, units, rows) ? dense_grad_weight(&b) : PRODUCT_NOT_REPRESENTABLE;
    if (status == PRODUCT_NOT_REPRESENTABLE) status = gather_grad_weight(&b);
  }
  if (grad_bias && status == FA_OK)
    status = gradient_of_bias(&call, rows, out_features, pieces, grad_y, argmax, accumulate, grad_bias);
  return end_call(status);
}
