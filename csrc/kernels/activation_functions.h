/* Types and constants that the bodies of the activations share: the type of a function over an array, and the functions
 * over arrays of floats that the float64 translation unit of an ISA computes in lanes of doubles. */
#ifndef FA_ACTIVATION_FUNCTIONS_H
#define FA_ACTIVATION_FUNCTIONS_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* The constants of selu (Klambauer et al. 2017). */
#define SELU_ALPHA 1.6732632423543772848170429916717
#define SELU_SCALE 1.0507009873554804934193349852946

/* The parameter of an activation: a number (negative_slope or alpha), or PReLU's slope (n), one for all elements where
 * slope_step is 0. */
struct parameter {
  double number;
  const void *slope;
  int64_t slope_step;
};

/* y = f(z) over n elements; y may be z */
typedef void forward_array(const struct parameter *, const void *z, void *y, int64_t n);
/* grad_z = grad_y dy/dz over n elements; grad_z may be grad_y or saved, which is z or y */
typedef void backward_array(const struct parameter *, const void *grad_y, const void *saved, void *grad_z, int64_t n);

/* Functions over arrays of floats that do not reach 2 ULP in lanes of floats. */
struct double_lanes {
  forward_array *gelu_tanh_forward, *mish_forward;
  backward_array *gelu_tanh_backward, *mish_backward;
};
extern const struct double_lanes DOUBLE_LANES;

#endif
