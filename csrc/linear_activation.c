#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "fastact_abi.h"
#include "grad_bias.h"
#include "activations.h"
#include "outer_products.h"
#include "threads.h"

/* Up to so many rows, and from so many vectors of in_features, grad_weight is outer products, summed in registers and
 * written once, where the tiles of a product write their sums twice.  1, 8, 32 and 64 rows took 61, 119, 331 and 632
 * us instead of 154, 175, 368 and 654 for (1024, 1024), 10, 16, 33 and 57 instead of 15, 20, 35 and 57 for (288, 288),
 * but 6.7 instead of 6.4 from one row on for (64, 64) (Zen 5, AVX-512). */
#define OUTER_PRODUCT_ROWS 32
#define OUTER_PRODUCT_VECTORS 8

#define REAL_BITS 32
#include "linear_activation.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "linear_activation.c"
#else
#include "real.h"

/* What finishes a block of the product: z -> y, both (rows, out_features), while the block is in cache. */
struct REAL(activation_context) {
  const struct REAL(kernels) * kernels;
  int activation;
  double parameter;
  const real *slope;
  int64_t slopes, out_features;
  const real *z;
  real *y;
};

static void REAL(finish_activation)(const void *context, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const struct REAL(activation_context) *c = context;
  int64_t slope_step = c->slopes > 1;
  if (columns == c->out_features && !slope_step) { /* the rows lie one after the other */
    columns *= rows;
    rows = 1;
  }
  for (int64_t r = row; r < row + rows; r++) {
    int64_t at = r * c->out_features + column;
    c->kernels->activation(c->activation, c->parameter, c->slope + slope_step * column, slope_step, c->z + at,
                           c->y + at, columns);
  }
}

int REAL(activated_product)(const struct REAL(product) * p, int activation, double parameter, const real *slope,
                            int64_t slopes, real *y, int threads) {
  struct REAL(activation_context) context = {
      .kernels = (p->packed ? p->packed->isa : isa_active())->REAL(kernels),
      .activation = activation,
      .parameter = parameter,
      .slope = slope,
      .slopes = slopes,
      .out_features = p->columns,
      .z = p->y,
      .y = y,
  };
  struct REAL(product) product = *p;
  if (activation != FA_LINEAR) product.after = REAL(finish_activation);
  product.after_context = &context;
  return REAL(product)(&product, threads);
}

int REAL(fa_linear_activation)(int64_t rows, int64_t in_features, int64_t out_features, int activation,
                               double parameter, const real *slope, int64_t slopes, const real *x, const real *weight,
                               const real *bias, real *y, real *z, int threads, int precision) {
  return REAL(activated_product)(
      &(struct REAL(product)){
          .rows = rows,
          .depth = in_features,
          .columns = out_features,
          .pieces = 1,
          .left = x,
          .left_row_stride = in_features,
          .left_depth_stride = 1,
          .right = weight,
          .right_column_stride = in_features,
          .right_depth_stride = 1,
          .bias = bias,
          .y = z ? z : y,
          .precision = precision,
      },
      activation, parameter, slope, slopes, y, threads);
}

int REAL(fa_linear_activation_backward)(int64_t rows, int64_t in_features, int64_t out_features, int activation,
                                        double parameter, const real *slope, int64_t slopes, const real *grad_y,
                                        const real *x, const real *weight, const real *saved, real *grad_x,
                                        real *grad_weight, real *grad_bias, real *grad_slope, int accumulate,
                                        int threads, int precision) {
  const real *grad_z = grad_y;
  int status = FA_OK;
  if (activation != FA_LINEAR) {
    real *memory = scratch(SCRATCH_GRADIENT, (size_t)(rows * out_features) * sizeof(real));
    if (!memory) return FA_NO_MEMORY;
    grad_z = memory;
    status = REAL(fa_activation_backward)(rows, out_features, activation, parameter, slope, slopes, grad_y, saved,
                                          memory, grad_slope, accumulate, threads);
  }
  if (grad_x && !status) /* (rows, out) @ (out, in) */
    status = REAL(product)(
        &(struct REAL(product)){
            .rows = rows,
            .depth = out_features,
            .columns = in_features,
            .pieces = 1,
            .left = grad_z,
            .left_row_stride = out_features,
            .left_depth_stride = 1,
            .right = weight,
            .right_column_stride = 1,
            .right_depth_stride = in_features,
            .y = grad_x,
            .precision = precision,
        },
        threads);
  if (grad_weight && !status && rows <= OUTER_PRODUCT_ROWS &&
      in_features >= OUTER_PRODUCT_VECTORS * isa_active()->REAL(kernels)->lanes)
    status = REAL(outer_products)(rows, in_features, out_features, grad_z, x, grad_weight, accumulate, threads);
  else if (grad_weight && !status) /* (out, rows) @ (rows, in) */
    status = REAL(product)(
        &(struct REAL(product)){
            .rows = out_features,
            .depth = rows,
            .columns = in_features,
            .pieces = 1,
            .left = grad_z,
            .left_row_stride = 1,
            .left_depth_stride = out_features,
            .right = x,
            .right_column_stride = 1,
            .right_depth_stride = in_features,
            .y = grad_weight,
            .precision = precision,
            .accumulate = accumulate,
        },
        threads);
  if (grad_bias && !status)
    status = REAL(grad_bias)(rows, out_features, 1, grad_z, NULL, accumulate, grad_bias, threads);
  if (activation != FA_LINEAR) release_scratch(SCRATCH_GRADIENT);
  return status;
}

#endif
