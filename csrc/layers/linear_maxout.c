#include <string.h>

#include "layers/step.h"

int maxout_forward(const struct call *call, const struct fa_step *step, int64_t rows, const char *x, char *y,
                   uint8_t *argmax) {
  const struct source left = left_of(step, x, call->kernels->itemsize);
  if (step->pieces == 1 && argmax) memset(argmax, 0, (size_t)(rows * step->out_features));
  return run_product(call, &(struct product){
                               .rows = rows,
                               .depth = depth_of(step),
                               .columns = step->out_features,
                               .pieces = step->pieces,
                               .left = &left,
                               .right = weights_of(step),
                               .epilogue = {.y = y, .argmax = argmax, .y_stride = step->out_features},
                           });
}

int fa_linear_maxout(int dtype, int64_t rows, int64_t in_features, int64_t out_features, int64_t pieces, const void *x,
                     const void *weight, const void *bias, void *y, uint8_t *argmax, int threads, int precision) {
  const struct call call = begin_call(dtype, precision, threads);
  const struct fa_step step = product_step(FA_MAXOUT, in_features, out_features, pieces, weight, bias);
  return end_call(maxout_forward(&call, &step, rows, x, y, argmax));
}
