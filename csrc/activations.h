/* Activations over arrays, and as the finish of a product. */
#ifndef FA_ACTIVATIONS_H
#define FA_ACTIVATIONS_H

#include "product.h"

/* fa_activation on the kernels of a given ISA */
void activate_f32(const struct kernels_f32 *kernels, int64_t rows, int64_t features, int activation, double parameter,
                  const float *slope, int64_t slopes, const float *z, float *y, int threads);
void activate_f64(const struct kernels_f64 *kernels, int64_t rows, int64_t features, int activation, double parameter,
                  const double *slope, int64_t slopes, const double *z, double *y, int threads);

/* The product p, in p->y, and y = activation(it), which may be p->y itself; each block while it is in cache.
 * Returns FA_OK or FA_NO_MEMORY. */
int activated_product_f32(const struct product_f32 *p, int activation, double parameter, const float *slope,
                          int64_t slopes, float *y, int threads);
int activated_product_f64(const struct product_f64 *p, int activation, double parameter, const double *slope,
                          int64_t slopes, double *y, int threads);

#endif
