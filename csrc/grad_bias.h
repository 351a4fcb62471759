/* The gradient of a bias, of maxout's and of a plain layer's. */
#ifndef FA_GRAD_BIAS_H
#define FA_GRAD_BIAS_H

#include <stdint.h>

/* grad_y (rows, out_features) -> grad_bias (out_features, pieces): for each piece of each output the sum over the
 * rows that it won; argmax (rows, out_features), or NULL for pieces = 1.  Returns FA_OK or FA_NO_MEMORY. */
int grad_bias_f32(int64_t rows, int64_t out_features, int64_t pieces, const float *grad_y, const uint8_t *argmax,
                  int accumulate, float *grad_bias, int threads);
int grad_bias_f64(int64_t rows, int64_t out_features, int64_t pieces, const double *grad_y, const uint8_t *argmax,
                  int accumulate, double *grad_bias, int threads);

#endif
