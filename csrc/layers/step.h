/* A layer of a network, with its parameters and their gradients, as the drivers take it. */
#ifndef FA_STEP_H
#define FA_STEP_H

#include "engine/product.h"
#include "engine/sizes.h"
#include "layers/activation.h"

struct fa_step {
  int layer; /* enum fa_layer */
  int precision;
  int64_t in_features, out_features;
  int window;                          /* of FA_LINEAR and FA_MAXOUT: rows on each side that come with a row of x */
  int pieces;                          /* of FA_MAXOUT */
  const char *weight;                  /* (out_features, pieces, depth); NULL where `packed` suffices */
  int64_t unit_stride;                 /* between the units of weight, in elements */
  const char *bias;                    /* (out_features, pieces), or NULL */
  const struct packed_weights *packed; /* or NULL */
  struct activation activation;        /* of FA_LINEAR and FA_ACTIVATION */
  int saves_z;                         /* its backward needs z, not y */
  double factor;                       /* of FA_DROPOUT, for the numbers that are kept */
  double eps;                          /* of FA_LAYER_NORM, whose weight and bias are (features) */

  char *grad_weight, *grad_bias, *grad_slope; /* each or NULL */

  /* Of a frozen step, which always runs on one ISA. */
  const struct isa *isa;
  int dtype;
};

/* A FA_LINEAR or FA_MAXOUT on weights in place, without activation and gradients. */
static inline struct fa_step product_step(int layer, int64_t in_features, int64_t out_features, int64_t pieces,
                                          const void *weight, const void *bias) {
  return (struct fa_step){.layer = layer,
                          .in_features = in_features,
                          .out_features = out_features,
                          .pieces = (int)pieces,
                          .weight = weight,
                          .unit_stride = in_features,
                          .bias = bias};
}

/* The depth of the step's product: the features of 2 window + 1 rows. */
static inline int64_t depth_of(const struct fa_step *step) { return (2 * step->window + 1) * step->in_features; }

/* The left operand of the step's product, without a matrix of windows: the rows of x follow each other, so a row with
 * its neighbours is contiguous, and starts in_features after the one before.  x of a window stands between `window`
 * rows of zeros before and after it. */
static inline struct source left_of(const struct fa_step *step, const char *x, int itemsize) {
  return dense_source(element(x, -step->window * step->in_features, itemsize), step->in_features, 1);
}

/* The right operand of the step's product. */
static inline struct weights weights_of(const struct fa_step *step) {
  return (struct weights){.data = step->weight,
                          .column_stride = step->pieces * step->unit_stride,
                          .depth_stride = 1,
                          .piece_stride = step->unit_stride,
                          .bias = step->bias,
                          .packed = step->packed};
}

/* x (rows, in_features), between the zeros of a window -> y (rows, out_features), and z or argmax, of y's shape, or
 * NULL.  Each of these functions returns FA_OK or FA_NO_MEMORY. */
int linear_forward(const struct call *call, const struct fa_step *step, int64_t rows, const char *x, char *y, char *z);
int maxout_forward(const struct call *call, const struct fa_step *step, int64_t rows, const char *x, char *y,
                   uint8_t *argmax);

/* grad_y, saved (rows, out_features) -> grad_x (rows, in_features) or NULL, and the gradients of the parameters, to
 * which `accumulate` adds.  An argmax is below pieces. */
int linear_backward(const struct call *call, const struct fa_step *step, int64_t rows, const char *grad_y,
                    const char *x, const char *saved, char *grad_x, int accumulate);
int maxout_backward(const struct call *call, const struct fa_step *step, int64_t rows, const char *grad_y,
                    const char *x, const uint8_t *argmax, char *grad_x, int accumulate);

#endif
