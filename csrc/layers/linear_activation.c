#include "engine/sizes.h"
#include "engine/workspace.h"
#include "layers/grad_bias.h"
#include "layers/maxout_backward.h"
#include "layers/step.h"

/* Small-batch grad_weight: with at most this many rows, and at least this many vectors of in_features, outer products
 * are summed in registers and written once, where the micro-tiles of a product write their sums twice.
 * bench/tuning: outer-products */
#define OUTER_PRODUCT_ROWS 32
#define OUTER_PRODUCT_VECTORS 8

int linear_forward(const struct call *call, const struct fa_step *step, int64_t rows, const char *x, char *y, char *z) {
  const struct source left = dense_source(x, step->in_features, 1);
  const struct product product = {
      .rows = rows,
      .depth = step->in_features,
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

/* grad_x (rows, in) = grad_z (rows, out) @ weight (out, in) */
static int gradient_of_x(const struct call *call, int64_t rows, int64_t in_features, int64_t out_features,
                         const void *grad_z, const void *weight, void *grad_x) {
  const struct source left = dense_source(grad_z, out_features, 1);
  return run_product(call, &(struct product){
                               .rows = rows,
                               .depth = out_features,
                               .columns = in_features,
                               .pieces = 1,
                               .left = &left,
                               .right = {.data = weight, .column_stride = 1, .depth_stride = in_features},
                               .epilogue = {.y = grad_x, .y_stride = in_features},
                           });
}

/* grad_weight (out, in) = grad_zᵀ (out, rows) @ x (rows, in), or added to it */
static int gradient_of_weight(const struct call *call, int64_t rows, int64_t in_features, int64_t out_features,
                              const void *grad_z, const void *x, void *grad_weight, int accumulate) {
  if (rows <= OUTER_PRODUCT_ROWS && in_features >= OUTER_PRODUCT_VECTORS * call->kernels->lanes)
    return gather_grad_weight(&(struct maxout_backward){/* the only piece is the winner in every row */
                                                        .call = call,
                                                        .rows = rows,
                                                        .in_features = in_features,
                                                        .out_features = out_features,
                                                        .pieces = 1,
                                                        .grad_y = grad_z,
                                                        .x = x,
                                                        .grad_weight = grad_weight,
                                                        .accumulate = accumulate});
  const struct source left = dense_source(grad_z, 1, out_features);
  return run_product(call, &(struct product){
                               .rows = out_features,
                               .depth = rows,
                               .columns = in_features,
                               .pieces = 1,
                               .left = &left,
                               .right = {.data = x, .column_stride = 1, .depth_stride = in_features},
                               .epilogue = {.y = grad_weight, .y_stride = in_features, .accumulate = accumulate},
                           });
}

int linear_backward(const struct call *call, const struct fa_step *step, int64_t rows, const char *grad_y,
                    const char *x, const char *saved, char *grad_x, int accumulate) {
  int64_t in_features = step->in_features, out_features = step->out_features;
  const char *grad_z = grad_y;
  int status = FA_OK;
  if (step->activation.code != FA_IDENTITY) {
    char *memory = workspace(WORKSPACE_GRADIENT, (size_t)(rows * out_features * call->kernels->itemsize));
    if (!memory) return FA_NO_MEMORY;
    grad_z = memory;
    status = activation_backward(call, rows, out_features, &step->activation, grad_y, saved, memory, step->grad_slope,
                                 accumulate);
  }
  if (grad_x && status == FA_OK)
    status = gradient_of_x(call, rows, in_features, out_features, grad_z, step->weight, grad_x);
  if (step->grad_weight && status == FA_OK)
    status = gradient_of_weight(call, rows, in_features, out_features, grad_z, x, step->grad_weight, accumulate);
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
