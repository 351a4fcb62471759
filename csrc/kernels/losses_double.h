/* Element-wise losses in lanes of doubles.  The float64 translation unit of an ISA includes this file twice, for arrays
 * of floats and of doubles. */
#ifndef REAL_BITS
#define EDITOR_BITS 64
#include "kernels/editor.h"
#endif

#include "kernels/exp_double.h"
#include "kernels/wide_sums.h"

/* The loss of WIDE_LANES elements, and *grad, both as struct pairs says. */
typedef wide REAL(loss_formula)(wide y, wide target, const struct pairs *, wide *grad);

/* Over arrays.  The last, incomplete block is padded with a y whose loss is 0 for the target 0. */
static ALWAYS_INLINE double REAL(sum_losses)(REAL(loss_formula) * f, double padding, const struct pairs *p) {
  const real *y = p->y, *target = p->target;
  real *grad = p->grad, rest[WIDE_LANES], rest_target[WIDE_LANES] = {0};
  struct wide_sum sum = wide_no_terms();
  for (int64_t i = 0; i < p->n; i += WIDE_LANES) {
    int whole = p->n - i >= WIDE_LANES;
    size_t rest_bytes = (size_t)(p->n - i) * sizeof(real);
    if (!whole) {
      REAL(wide_store)(rest, wide_set1(padding));
      memcpy(rest, y + i, rest_bytes);
      memcpy(rest_target, target + i, rest_bytes);
    }
    wide slope,
        loss = f(REAL(wide_load)(whole ? y + i : rest), REAL(wide_load)(whole ? target + i : rest_target), p, &slope);
    REAL(wide_add_term)(&sum, loss);
    REAL(wide_store)(whole ? grad + i : rest, slope);
    if (!whole) memcpy(grad + i, rest, rest_bytes);
  }
  return wide_sum_lanes(sum);
}

/* log(1 + exp(-|z|)) + z ([z > 0] - target), in which no term is negative for a target from 0 to 1; and the logistic
 * function of z, less target */
static ALWAYS_INLINE wide REAL(binary_formula)(wide z, wide target, const struct pairs *p, wide *grad) {
  fraction e = decay_f64(z);
  split s = mirrored_f64(z, e);
  *grad = wide_mul(wide_sub(wide_div(s.part, s.whole), target), wide_set1(p->scale));
  wide share = wide_set1(p->share), sign = wide_select(wide_gt(z, wide_set1(0)), wide_set1(1), wide_set1(0));
  wide linear = wide_mul(wide_mul(z, share), wide_sub(sign, target));
  return wide_fma(log1p_f64(e), share, linear);
}

static double REAL(binary_cross_entropy)(const struct pairs *p) {
  return REAL(sum_losses)(REAL(binary_formula), -LOWEST_f64, p);
}

/* d^2 / 2 if |d| <= delta, else delta (|d| - delta / 2); and d, between -delta and delta.  `off` is share d, since d
 * may overflow. */
static ALWAYS_INLINE wide REAL(huber_formula)(wide y, wide target, const struct pairs *p, wide *grad) {
  wide share = wide_set1(p->share), off = wide_sub(wide_mul(y, share), wide_mul(target, share)), size = wide_abs(off);
  double limit = p->delta * p->share;
  *grad = wide_mul(clamp_f64(off, limit), wide_set1(p->scale / p->share));
  wide square = wide_mul(wide_mul(wide_set1(0.5), off), wide_mul(off, wide_set1(1 / p->share)));
  wide linear = wide_mul(wide_set1(p->delta), wide_sub(size, wide_set1(limit / 2)));
  return wide_select(wide_gt(size, wide_set1(limit)), linear, square);
}

static double REAL(huber)(const struct pairs *p) { return REAL(sum_losses)(REAL(huber_formula), 0, p); }
