/* Layer norm and its gradients. */
#ifndef FA_LAYERS_LAYER_NORM_H
#define FA_LAYERS_LAYER_NORM_H

#include "engine/dispatch.h"

/* x (rows, features), features >= 1 -> y = (x - mean) / sqrt(variance + eps) weight + bias for each row, which may be
 * x, and saved (rows, 2): the mean and 1 / sqrt(variance + eps).  weight and bias are (features).  weight, bias and
 * saved may be NULL. */
void layer_norm(const struct call *call, int64_t rows, int64_t features, double eps, const void *x, const void *weight,
                const void *bias, void *y, void *saved);

/* grad_y (rows, features), and saved as the forward wrote it -> grad_x (rows, features), which may be grad_y, and
 * grad_weight and grad_bias (features), to which `accumulate` adds.  weight and each gradient may be NULL.  Returns
 * FA_OK or FA_NO_MEMORY. */
int layer_norm_backward(const struct call *call, int64_t rows, int64_t features, const void *grad_y, const void *x,
                        const void *weight, const void *saved, void *grad_x, void *grad_weight, void *grad_bias,
                        int accumulate);

#endif
