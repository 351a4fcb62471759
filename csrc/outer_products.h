/* grad_weight of a plain layer without a packed product: the winners' sums, with every row won by the only piece. */
#ifndef FA_OUTER_PRODUCTS_H
#define FA_OUTER_PRODUCTS_H

#include <stdint.h>

/* grad_weight (out_features, in_features) = grad_z(rows, out_features)ᵀ @ x(rows, in_features), or added to it. Returns
 * FA_OK or FA_NO_MEMORY. */
int outer_products_f32(int64_t rows, int64_t in_features, int64_t out_features, const float *grad_z, const float *x,
                       float *grad_weight, int accumulate, int threads);
int outer_products_f64(int64_t rows, int64_t in_features, int64_t out_features, const double *grad_z, const double *x,
                       double *grad_weight, int accumulate, int threads);

#endif
