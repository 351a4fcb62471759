#include "layers/maxout_backward.h"

#include "engine/product.h"
#include "layers/argmax.h"
#include "layers/grad_bias.h"
#include "layers/step.h"

int maxout_backward(const struct call *call, const struct fa_step *step, int64_t rows, const char *grad_y,
                    const char *x, const uint8_t *argmax, char *grad_x, int accumulate) {
  const struct maxout_backward b = {
      .call = call,
      .rows = rows,
      .in_features = step->in_features,
      .out_features = step->out_features,
      .pieces = step->pieces,
      .window = step->window,
      .depth = depth_of(step),
      .grad_y = grad_y,
      .x = left_of(step, x, call->kernels->itemsize).data,
      .weight = step->weight,
      .argmax = argmax,
      .grad_x = grad_x,
      .grad_weight = step->grad_weight,
      .accumulate = accumulate,
  };
  int64_t units = step->out_features * step->pieces;
  int status = FA_OK;
  if (grad_x) {
    status = dense_is_quicker(&b, rows, units, b.in_features) ? dense_grad_x(&b) : PRODUCT_NOT_REPRESENTABLE;
    if (status == PRODUCT_NOT_REPRESENTABLE) status = gather_grad_x(&b);
  }
  if (step->grad_weight && status == FA_OK) {
    status = dense_is_quicker(&b, units, rows, b.depth) ? dense_grad_weight(&b) : PRODUCT_NOT_REPRESENTABLE;
    if (status == PRODUCT_NOT_REPRESENTABLE) status = gather_grad_weight(&b);
  }
  if (step->grad_bias && status == FA_OK)
    status =
        gradient_of_bias(call, rows, step->out_features, step->pieces, grad_y, argmax, accumulate, step->grad_bias);
  return status;
}

int fa_linear_maxout_backward(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces,
                              const void *grad_y, const void *x, const void *weight, const uint8_t *argmax,
                              void *grad_x, void *grad_weight, void *grad_bias, int accumulate, int threads,
                              int precision) {
  if (!argmax_fits(rows * out_features, argmax, pieces)) return FA_BAD_ARGMAX;
  const struct call call = begin_call(dtype, precision, threads);
  struct fa_step step = product_step(FA_MAXOUT, in_features, out_features, pieces, weight, NULL);
  step.grad_weight = grad_weight;
  step.grad_bias = grad_bias;
  return end_call(maxout_backward(&call, &step, rows, grad_y, x, argmax, grad_x, accumulate));
}
