#include "engine/sizes.h"
#include "engine/workspace.h"
#include "layers/grad_bias.h"
#include "layers/maxout_backward.h"
#include "layers/step.h"
#include "layers/window.h"

/* Small-batch grad_weight: with at most this many rows, and at least this many vectors of in_features, outer products
 * are summed in registers and written once, where the micro-tiles of a product write their sums twice.
 * bench/tuning: outer-products */
#define OUTER_PRODUCT_ROWS 32
#define OUTER_PRODUCT_VECTORS 8

int linear_forward(const struct call *call, const struct fa_step *step, int64_t rows, const char *x, char *y, char *z) {
  const struct source left = left_of(step, x, call->kernels->itemsize);
  const struct product product = {
      .rows = rows,
      .depth = depth_of(step),
      .columns = step->out_features,
      .pieces = 1,
      .left = &left,
      .right = weights_of(step),
      .epilogue = {.y = z ? z : y, .y_stride = step->out_features},
  };
  return activated_product(call, &product, &step->activation, y);
}

int fa_linear_activation(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t activation,
                         double parameter, const void *slope, int64_t slopes, const void *x, const void *weight,
                         const void *bias, void *y, void *z, int threads, int precision) {
  const struct call call = begin_call(dtype, precision, threads);
  struct fa_step step = product_step(FA_LINEAR, in_features, out_features, 1, weight, bias);
  step.activation = activation_of(activation, parameter, slope, slopes);
  return end_call(linear_forward(&call, &step, rows, x, y, z));
}

/* grad_x (rows, in) = grad_z (rows, out) @ weight (out, in); of a window, the sum over its offsets */
static int gradient_of_x(const struct call *call, const struct fa_step *step, int64_t rows, const char *grad_z,
                         char *grad_x) {
  const int itemsize = call->kernels->itemsize;
  int64_t in_features = step->in_features, out_features = step->out_features;
  int status = FA_OK;
  for (int i = 0; i <= 2 * step->window && status == FA_OK; i++) {
    const struct window_terms terms = window_terms(rows, step->window, i);
    const struct source left = dense_source(element(grad_z, terms.from * out_features, itemsize), out_features, 1);
    const char *weight = element(step->weight, terms.offset * in_features, itemsize);
    char *y = element(grad_x, terms.to * in_features, itemsize);
    status = run_product(call, &(struct product){
                                   .rows = terms.rows,
                                   .depth = out_features,
                                   .columns = in_features,
                                   .pieces = 1,
                                   .left = &left,
                                   .right = {.data = weight, .column_stride = 1, .depth_stride = depth_of(step)},
                                   .epilogue = {.y = y, .y_stride = in_features, .accumulate = i > 0},
                               });
  }
  return status;
}

/* grad_weight (out, depth) = grad_zᵀ (out, rows) @ x (rows, depth), or added to it */
static int gradient_of_weight(const struct call *call, const struct fa_step *step, int64_t rows, const char *grad_z,
                              const char *x, int accumulate) {
  int64_t depth = depth_of(step), out_features = step->out_features;
  const struct source windows = left_of(step, x, call->kernels->itemsize);
  if (rows <= OUTER_PRODUCT_ROWS && depth >= OUTER_PRODUCT_VECTORS * call->kernels->lanes)
    return gather_grad_weight(&(struct maxout_backward){/* the only piece is the winner in every row */
                                                        .call = call,
                                                        .rows = rows,
                                                        .in_features = step->in_features,
                                                        .out_features = out_features,
                                                        .pieces = 1,
                                                        .depth = depth,
                                                        .grad_y = grad_z,
                                                        .x = windows.data,
                                                        .grad_weight = step->grad_weight,
                                                        .accumulate = accumulate});
  const struct source left = dense_source(grad_z, 1, out_features);
  return run_product(call, &(struct product){
                               .rows = out_features,
                               .depth = rows,
                               .columns = depth,
                               .pieces = 1,
                               .left = &left,
                               .right = {.data = windows.data, .column_stride = 1, .depth_stride = windows.row_stride},
                               .epilogue = {.y = step->grad_weight, .y_stride = depth, .accumulate = accumulate},
                           });
}

int linear_backward(const struct call *call, const struct fa_step *step, int64_t rows, const char *grad_y,
                    const char *x, const char *saved, char *grad_x, int accumulate) {
  int64_t out_features = step->out_features;
  const char *grad_z = grad_y;
  int status = FA_OK;
  if (step->activation.code != FA_IDENTITY) {
    char *memory = workspace(WORKSPACE_GRADIENT, (size_t)(rows * out_features * call->kernels->itemsize));
    if (!memory) return FA_NO_MEMORY;
    grad_z = memory;
    status = activation_backward(call, rows, out_features, &step->activation, grad_y, saved, memory, step->grad_slope,
                                 accumulate);
  }
  if (grad_x && status == FA_OK) status = gradient_of_x(call, step, rows, grad_z, grad_x);
  if (step->grad_weight && status == FA_OK) status = gradient_of_weight(call, step, rows, grad_z, x, accumulate);
  if (step->grad_bias && status == FA_OK)
    status = gradient_of_bias(call, rows, out_features, 1, grad_z, NULL, accumulate, step->grad_bias);
  return status;
}

int fa_linear_activation_backward(int dtype, int64_t rows, int64_t in_features, int64_t out_features,
                                  int64_t activation, double parameter, const void *slope, int64_t slopes,
                                  const void *grad_y, const void *x, const void *weight, const void *saved,
                                  void *grad_x, void *grad_weight, void *grad_bias, void *grad_slope, int accumulate,
                                  int threads, int precision) {
  const struct call call = begin_call(dtype, precision, threads);
  struct fa_step step = product_step(FA_LINEAR, in_features, out_features, 1, weight, NULL);
  step.activation = activation_of(activation, parameter, slope, slopes);
  step.grad_weight = grad_weight;
  step.grad_bias = grad_bias;
  step.grad_slope = grad_slope;
  return end_call(linear_backward(&call, &step, rows, grad_y, x, saved, grad_x, accumulate));
}
