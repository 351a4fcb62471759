/* The gradient of a bias, of linear + maxout and of a plain linear layer. */
#ifndef FA_LAYERS_GRAD_BIAS_H
#define FA_LAYERS_GRAD_BIAS_H

#include "engine/dispatch.h"

/* grad_y (rows, out_features) -> grad_bias (out_features, pieces): for each piece of each output the sum over the rows
 * in which the piece is the winner; argmax (rows, out_features), or NULL for pieces = 1.  Returns FA_OK or
 * FA_NO_MEMORY. */
int gradient_of_bias(const struct call *call, int64_t rows, int64_t out_features, int64_t pieces, const void *grad_y,
                     const uint8_t *argmax, int accumulate, void *grad_bias);

#endif
