/* Functions of WIDE_LANES elements, over arrays of REAL_BITS.  The float64 translation unit of an ISA includes this
 * file for both element types, so it has no include guard. */
#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/activation_functions.h"
#include "kernels/wide.h"

typedef wide REAL(formula)(wide z, double parameter);

/* y = f(z); y may be z.  The last, incomplete block goes through a padded copy. */
static ALWAYS_INLINE void REAL(map)(REAL(formula) * f, double parameter, const real *z, real *y, int64_t n) {
  real rest[WIDE_LANES] = {0};
  for (int64_t i = 0; i < n; i += WIDE_LANES) {
    int whole = n - i >= WIDE_LANES;
    if (!whole) memcpy(rest, z + i, (size_t)(n - i) * sizeof(real));
    REAL(wide_store)(whole ? y + i : rest, f(REAL(wide_load)(whole ? z + i : rest), parameter));
    if (!whole) memcpy(y + i, rest, (size_t)(n - i) * sizeof(real));
  }
}

/* grad_z = grad_y f(z); grad_z may be grad_y or z */
static ALWAYS_INLINE void REAL(chain)(REAL(formula) * f, double parameter, const real *grad_y, const real *z,
                                      real *grad_z, int64_t n) {
  real rest[WIDE_LANES] = {0}, rest_grad[WIDE_LANES] = {0};
  for (int64_t i = 0; i < n; i += WIDE_LANES) {
    int whole = n - i >= WIDE_LANES;
    if (!whole) {
      memcpy(rest, z + i, (size_t)(n - i) * sizeof(real));
      memcpy(rest_grad, grad_y + i, (size_t)(n - i) * sizeof(real));
    }
    wide slope = f(REAL(wide_load)(whole ? z + i : rest), parameter);
    wide grad = REAL(wide_load)(whole ? grad_y + i : rest_grad);
    REAL(wide_store)(whole ? grad_z + i : rest, wide_mul(grad, slope));
    if (!whole) memcpy(grad_z + i, rest, (size_t)(n - i) * sizeof(real));
  }
}

/* name_forward over arrays, for y = f(z), and name_backward, for dy/dz = f(z) */
#define WIDE_FORWARD(name, f)                                                                                          \
  static void REAL(name##_forward)(const struct parameter *p, const void *z, void *y, int64_t n) {                     \
    REAL(map)(f, p->number, z, y, n);                                                                                  \
  }
#define WIDE_BACKWARD(name, f)                                                                                         \
  static void REAL(name##_backward)(const struct parameter *p, const void *grad_y, const void *z, void *grad_z,        \
                                    int64_t n) {                                                                       \
    REAL(chain)(f, p->number, grad_y, z, grad_z, n);                                                                   \
  }
