/* Activations with an exponential, in lanes of floats, to less than 2 ULP (gelu without FMA 2.13).  gelu_tanh, the
 * derivative of mish, and mish on an ISA without fast table look-ups do not reach 2 ULP in float32 lanes.  They are
 * computed in lanes of doubles (struct double_lanes).
 *
 * With E = 2^n (1 + t) an exponential, q E is q + q t with its exponent raised, and 1 + E is 1 + 2^n + 2^n t, where
 * powers of two are exact.  Both have fewer roundings than a rounded exponential would give: the rounding of t, which
 * is below 2^-26 because |t| is below 0.42, and the rounding of the sum.
 *
 * With a = |z|, each of gelu(z), softplus(z) and mish(z) is max(z, 0) - E(a) q(a).  The function q (for mish one for
 * each side of 0) changes so little that a polynomial on each of 16 intervals approximates it to half an ULP.  The
 * derivatives of these three and of silu add up to 1 at z and -z. */
#ifndef FA_ACTIVATIONS_FLOAT_H
#define FA_ACTIVATIONS_FLOAT_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/activation_functions.h"
#include "kernels/coefficients.h"
#include "kernels/wide.h"
#include "kernels/wide_map.h"

/* exp(-LOWEST) * LOWEST and Phi(-TAIL_END) * TAIL_END round to 0. */
#define LOWEST 120.0f
#define TAIL_END 14.75f
/* sigmoid(z) rounds to 1 from here on. */
#define LOGISTIC_END 30.0f
/* exp(-z) - 1 rounds to -1 from ELU_END on, and tanh(z) to 1 from TANH_END on. */
#define ELU_END 40.0f
#define TANH_END 9.2f
/* 2^(n + RAISED) is a normal number for every n of an exponential.  The factor LOWERED undoes RAISED. */
#define RAISED 64.0f
#define LOWERED 0x1p-64f

/* c[0] + c[1] x + ... + c[degree] x^degree */
static ALWAYS_INLINE wide polynomial(int degree, const double *c, wide x) {
  wide sum = wide_set1((real)c[degree]);
  UNROLL
  for (int i = degree - 1; i >= 0; i--) sum = wide_fma(sum, x, wide_set1((real)c[i]));
  return sum;
}
#define POLYNOMIAL(table, x) polynomial((int)(sizeof(table) / sizeof(*table)) - 1, table, x)

/* value + step slope */
struct steps {
  wide value, step, slope;
};

static ALWAYS_INLINE wide sum_of_steps(struct steps q) { return wide_fma(q.slope, q.step, q.value); }

/* The function that p approximates, at a; 1 <= 1 + scale a < 16 */
static ALWAYS_INLINE struct steps piecewise(const struct pieces *p, wide a) {
  wide_index interval = wide_interval(wide_fma(a, wide_set1(p->scale), wide_set1(1)));
  wide d = wide_sub(a, wide_lookup(p->rows[0], interval));
  wide sum = wide_lookup(p->rows[7], interval);
  UNROLL
  for (int i = 6; i >= 2; i--) sum = wide_fma(sum, d, wide_lookup(p->rows[i], interval));
  return (struct steps){wide_lookup(p->rows[1], interval), d, sum};
}

/* x = n ln 2 + r with |r| <= ln(2) / 2: returns r; |x| <= LOWEST */
static ALWAYS_INLINE wide reduce(wide x, wide n) {
  /* ln 2 in two parts.  The first has 16 bits, so n times it is exact, and so is the difference to x. */
  wide r = wide_fma(n, wide_set1(-0x1.62e4p-1f), x);
  return wide_fma(n, wide_set1(-0x1.7f7d1cp-20f), r);
}

/* exp(r) - 1, |r| <= ln(2) / 2 */
static ALWAYS_INLINE wide expm1_middle(wide r) { return wide_fma(wide_mul(r, r), POLYNOMIAL(exp_p, r), r); }

/* t with exp(x) = 2^n (1 + t), sqrt(1/2) <= 1 + t <= sqrt(2); |x| <= LOWEST */
static ALWAYS_INLINE wide exponential(wide x, wide *n) {
  *n = wide_round(wide_mul(x, wide_set1(0x1.715476p+0f)));
  return expm1_middle(reduce(x, *n));
}

/* t and n for exp(-a^2 / 2), 0 <= a <= TAIL_END */
static ALWAYS_INLINE wide gaussian(wide a, wide *n) {
  /* An error of half an ULP in a^2 would become 60 ULP in the result.  The square of a's first 12 bits is exact. */
  wide first = wide_sub(wide_add(a, wide_set1(0x1.8p15f)), wide_set1(0x1.8p15f));
  wide rest = wide_mul(wide_sub(a, first), wide_add(a, first)), square = wide_mul(first, first);
  *n = wide_round(wide_mul(square, wide_set1(-0x1.715476p-1f)));
  /* As in reduce(), but r is -2 times the reduced exponent. */
  wide r = wide_fma(*n, wide_set1(0x1.62e4p+0f), square);
  r = wide_add(r, wide_fma(*n, wide_set1(0x1.7f7d1cp-19f), rest));
  return wide_mul(r, POLYNOMIAL(half_exp_p, r));
}

/* 2^(n + RAISED) (1 + t) */
static ALWAYS_INLINE wide raised(wide t, wide n) {
  return wide_scale2(wide_add(wide_set1(1), t), wide_add(n, wide_set1(RAISED)));
}

/* min(|z|, limit) */
static ALWAYS_INLINE wide magnitude(wide z, real limit) { return wide_min(wide_set1(limit), wide_abs(z)); }

/* 2^(n + RAISED) (1 + t) q.  The terms that are small beside q are added up first: to round q, and then q + q t to a
 * lower power of two, would cost another ULP. */
static ALWAYS_INLINE wide raised_steps(struct steps q, wide t, wide n) {
  wide change = wide_fma(q.slope, q.step, wide_mul(sum_of_steps(q), t));
  return wide_scale2(wide_add(q.value, change), wide_add(n, wide_set1(RAISED)));
}

/* exp(-a) q(a), and exp(-a^2 / 2) q(a), times 2^RAISED */
static ALWAYS_INLINE wide exponential_tail(const struct pieces *q, wide z) {
  wide a = magnitude(z, LOWEST), n, t = exponential(wide_sub(wide_set1(0), a), &n);
  return raised_steps(piecewise(q, wide_min(wide_set1(20), a)), t, n);
}

static ALWAYS_INLINE wide gaussian_tail(const struct pieces *q, wide z) {
  wide a = magnitude(z, TAIL_END), n, t = gaussian(a, &n);
  return raised_steps(piecewise(q, a), t, n);
}

/* max(z, 0) - tail */
static ALWAYS_INLINE wide less_tail(wide z, wide tail) {
  return wide_fma(tail, wide_set1(-LOWERED), wide_max(wide_set1(0), z));
}

/* tail where z <= 0, 1 - tail where z > 0 */
static ALWAYS_INLINE wide mirrored_tail(wide z, wide tail) {
  wide_mask right = wide_gt(z, wide_set1(0));
  wide sign = wide_select(right, wide_set1(-LOWERED), wide_set1(LOWERED));
  return wide_fma(tail, sign, wide_select(right, wide_set1(1), wide_set1(0)));
}

/* ---- y from z */

static ALWAYS_INLINE wide gelu(wide z, double parameter) {
  (void)parameter;
  return less_tail(z, gaussian_tail(&gelu_pieces, z));
}

/* one + power (1 + t), where one and power are powers of two.  The rounding error of one + power, which is not 0 where
 * the powers differ by a factor of about 2^24, is added to power t. */
static ALWAYS_INLINE wide sum_of(wide one, wide power, wide t) {
  wide sum = wide_add(one, power), rest = wide_sub(one, wide_sub(sum, power));
  return wide_add(wide_fma(power, t, rest), sum);
}

#ifdef FAST_LOOKUP
/* mish_pieces of z, a = |z| */
static ALWAYS_INLINE struct steps mish_steps(wide z, wide a) {
  const struct pieces *right = &mish_pieces[0], *left = &mish_pieces[1];
  wide inside = wide_min(wide_set1(20), a);
  wide_index interval = wide_signed_interval(wide_fma(inside, wide_set1(right->scale), wide_set1(1)), z);
  wide d = wide_sub(a, wide_lookup_two(right->rows[0], left->rows[0], interval));
  wide sum = wide_lookup_two(right->rows[7], left->rows[7], interval);
  UNROLL
  for (int i = 6; i >= 2; i--) sum = wide_fma(sum, d, wide_lookup_two(right->rows[i], left->rows[i], interval));
  /* On the left, the tables of the first and the last interval leave a / 2 out and have c[0] = 0, so the maximum is
   * a / 2.  In the other intervals c[0] is larger, and on the right -z / 2 is negative. */
  wide first = wide_lookup_two(right->rows[1], left->rows[1], interval);
  return (struct steps){wide_max(wide_mul(wide_set1(-0.5f), z), first), d, sum};
}

/* Faster than in lanes of doubles.  bench/tuning: mish-in-floats */
static ALWAYS_INLINE wide mish(wide z, double parameter) {
  (void)parameter;
  z = wide_max(wide_set1(-LOWEST), z);
  wide a = magnitude(z, LOWEST), n, t = exponential(wide_sub(wide_set1(0), a), &n);
  return less_tail(z, raised_steps(mish_steps(z, a), t, n));
}
#endif

/* z / (1 + exp(-z)).  Where exp(-z) > 2^100, the power of two beyond 2^100 divides at the end. */
static ALWAYS_INLINE wide silu(wide z, double parameter) {
  (void)parameter;
  z = wide_max(wide_set1(-LOWEST), z);
  wide n, t = exponential(wide_sub(wide_set1(0), wide_min(wide_set1(LOGISTIC_END), z)), &n);
  wide most = wide_min(wide_set1(100), n), power = wide_scale2(wide_set1(1), most);
  return wide_scale2(wide_div(z, sum_of(wide_set1(1), power, t)), wide_sub(most, n));
}

static ALWAYS_INLINE wide softplus(wide z, double parameter) {
  (void)parameter;
  return less_tail(z, exponential_tail(&softplus_pieces, z));
}

static ALWAYS_INLINE wide logsigmoid(wide z, double parameter) {
  return wide_sub(wide_set1(0), softplus(wide_sub(wide_set1(0), z), parameter));
}

/* 1 / (1 + exp(-z)), numerator and denominator divided by 2^64, because exp(-z) may be above the largest float */
static ALWAYS_INLINE wide sigmoid(wide z, double parameter) {
  (void)parameter;
  z = wide_max(wide_set1(-LOWEST), wide_min(wide_set1(LOGISTIC_END), z));
  wide n, t = exponential(wide_sub(wide_set1(0), z), &n);
  wide one = wide_set1(LOWERED), power = wide_scale2(wide_set1(1), wide_sub(n, wide_set1(RAISED)));
  return wide_div(one, sum_of(one, power, t));
}

static ALWAYS_INLINE wide tanh_wide(wide z, double parameter) {
  (void)parameter;
#ifdef FAST_LOOKUP
  return wide_sign(sum_of_steps(piecewise(&tanh_pieces, magnitude(z, TANH_END))), z);
#else
  /* z + z^3 p(z^2) up to tanh(z) = 1/2, then 1 - 2 / (exp(2 |z|) + 1) */
  wide w = wide_mul(z, z), middle = wide_fma(wide_mul(z, w), POLYNOMIAL(tanh_p, w), z);
  wide a = magnitude(z, TANH_END), n, t = exponential(wide_add(a, a), &n), power = wide_scale2(wide_set1(1), n);
  wide rest = wide_div(wide_set1(2), wide_fma(power, t, wide_add(wide_set1(1), power)));
  wide outside = wide_sign(wide_sub(wide_set1(1), rest), z);
  return wide_select(wide_gt(a, wide_set1(0.55f)), outside, middle);
#endif
}

/* dy/dz of logsigmoid */
static ALWAYS_INLINE wide sigmoid_of_minus(wide z, double parameter) {
  return sigmoid(wide_sub(wide_set1(0), z), parameter);
}

/* a c for finite a, with c in two parts */
static ALWAYS_INLINE wide scaled(wide a, double c) {
  real first = (real)c, rest = isinf(first) ? 0 : (real)(c - (double)first);
  return wide_fma(a, wide_set1(first), wide_mul(a, wide_set1(rest)));
}

/* exp(z) - 1, z <= 0.  The first term, a power of two minus 1, is exact or -1. */
static ALWAYS_INLINE wide elu_tail(wide z) {
  wide n, t = exponential(wide_max(wide_set1(-ELU_END), wide_min(wide_set1(0), z)), &n);
  wide power = wide_scale2(wide_set1(1), n);
  return wide_fma(power, t, wide_sub(power, wide_set1(1)));
}

static ALWAYS_INLINE wide elu(wide z, double alpha) {
  return wide_select(wide_gt(z, wide_set1(0)), z, scaled(elu_tail(z), alpha));
}

static ALWAYS_INLINE wide selu(wide z, double parameter) {
  (void)parameter;
  wide above = scaled(wide_min(wide_set1(REAL_MAX), z), SELU_SCALE);
  return wide_select(wide_gt(z, wide_set1(0)), above, scaled(elu_tail(z), SELU_SCALE * SELU_ALPHA));
}

/* ---- dy/dz from z */

static ALWAYS_INLINE wide gelu_slope(wide z, double parameter) {
  (void)parameter;
  return mirrored_tail(z, gaussian_tail(&gelu_slope_pieces, z));
}

/* with e = exp(-|z|), e (1 + e - |z|) / (1 + e)^2 on the left */
static ALWAYS_INLINE wide silu_slope(wide z, double parameter) {
  (void)parameter;
  wide a = magnitude(z, LOWEST), n, t = exponential(wide_sub(wide_set1(0), a), &n);
  wide tail = raised(t, n), sum = wide_fma(tail, wide_set1(LOWERED), wide_set1(1));
  return mirrored_tail(z, wide_div(wide_mul(tail, wide_sub(sum, a)), wide_mul(sum, sum)));
}

/* `right` where z > 0, `left` times exp(z) elsewhere */
static ALWAYS_INLINE wide exponential_slope(wide z, double right, double left) {
  wide x = wide_max(wide_set1(-LOWEST), wide_min(wide_set1(0), z)), n, t = exponential(x, &n);
  /* 2^n may be too small for a float, so the factor is multiplied in before it.  The factor is multiplied by
   * (1 + t) / 2, because the largest factor times 1 + t would overflow. */
  wide half = wide_set1(0.5f), below = wide_mul(wide_fma(t, half, half), wide_set1((real)left));
  wide exponent = wide_add(n, wide_set1(1)), most = wide_max(wide_set1(-100), exponent);
  below = wide_scale2(wide_scale2(below, most), wide_sub(exponent, most));
  return wide_select(wide_gt(z, wide_set1(0)), wide_set1((real)right), below);
}

static ALWAYS_INLINE wide elu_slope(wide z, double alpha) { return exponential_slope(z, 1, alpha); }

static ALWAYS_INLINE wide selu_slope(wide z, double parameter) {
  (void)parameter;
  return exponential_slope(z, SELU_SCALE, SELU_SCALE * SELU_ALPHA);
}

/* ---- over arrays */

WIDE_FORWARD(elu, elu)
WIDE_BACKWARD(elu, elu_slope)
WIDE_FORWARD(selu, selu)
WIDE_BACKWARD(selu, selu_slope)
WIDE_FORWARD(gelu, gelu)
WIDE_BACKWARD(gelu, gelu_slope)
WIDE_FORWARD(silu, silu)
WIDE_BACKWARD(silu, silu_slope)
WIDE_FORWARD(softplus, softplus)
WIDE_BACKWARD(softplus, sigmoid)
WIDE_FORWARD(logsigmoid, logsigmoid)
WIDE_BACKWARD(logsigmoid, sigmoid_of_minus)
WIDE_FORWARD(sigmoid, sigmoid)
WIDE_FORWARD(tanh, tanh_wide)

/* In lanes of doubles. */
#define DOUBLE_FORWARD(name)                                                                                           \
  static void REAL(name##_forward)(const struct parameter *p, const void *z, void *y, int64_t n) {                     \
    DOUBLE_LANES.name##_forward(p, z, y, n);                                                                           \
  }
#define DOUBLE_BACKWARD(name)                                                                                          \
  static void REAL(name##_backward)(const struct parameter *p, const void *grad_y, const void *z, void *grad_z,        \
                                    int64_t n) {                                                                       \
    DOUBLE_LANES.name##_backward(p, grad_y, z, grad_z, n);                                                             \
  }
DOUBLE_FORWARD(gelu_tanh)
DOUBLE_BACKWARD(gelu_tanh)
DOUBLE_BACKWARD(mish)
#ifdef FAST_LOOKUP
WIDE_FORWARD(mish, mish)
#else
DOUBLE_FORWARD(mish)
#endif

#endif
