/* Activations with an exponential, in lanes of doubles.  The float64 translation unit of an ISA includes this file
 * twice: for arrays of doubles all of these activations, for arrays of floats the functions of struct double_lanes.  A
 * float in a lane of a double needs no care for overflow, cancellation or subnormal results. */
#ifndef REAL_BITS
#define EDITOR_BITS 64
#include "kernels/editor.h"
#endif

#include "kernels/exp_double.h"
#include "kernels/wide_map.h"

/* 2 sqrt(2 / pi) */
#define GELU_LINEAR 1.5957691216057307
#define GELU_CUBIC (0.044715 * GELU_LINEAR)
/* The same constants in two parts: a first part of few bits, and the rest. */
#define GELU_LINEAR_FIRST 0x1.9884533d4364p+0
#define GELU_LINEAR_REST 0x1.08d0fcb3c500cp-48
#define GELU_CUBIC_FIRST 0x1.2444p-4
#define GELU_CUBIC_REST 0x1.e549b1695e938p-21
#define INVERSE_SQRT_2PI 0.3989422804014327

/* From here on tanh(softplus(z)) rounds to 1, exp(-z) - 1 to -1, and tanh(z) to 1. */
#define MISH_END 40.0
#define ELU_END 40.0
#define TANH_END 20.0
/* gelu_tanh(-z) rounds to 0 from here on. */
#if REAL_BITS == 32
#define CUBIC_END 12.0
#else
#define CUBIC_END 22.0
#endif

/* ---- y from z */

/* z / 2 (1 + tanh u) = z / (1 + exp(-2 u)), u = sqrt(2 / pi) (z + 0.044715 z^3): the logistic function of 2 u */
static ALWAYS_INLINE split REAL(gelu_logistic)(wide z) {
#if REAL_BITS == 32
  wide square = wide_mul(z, z);
  return REAL(logistic)(wide_mul(z, wide_fma(square, wide_set1(GELU_CUBIC), wide_set1(GELU_LINEAR))));
#else
  /* 2 u is up to 800, so an error of half an ULP in it would become 400 ULP in the result.  Therefore 2 |u| is
   * computed as x + rest with exact x: z and both factors are split into a first part, whose products are exact, and a
   * rest.  The last bits of the first parts are 2^-14 (z), 2^-46 and 2^-18 (the two constants) and 2^-28 (their sum).
   */
  wide a = wide_min(wide_set1(CUBIC_END), wide_abs(z));
  wide first = wide_sub(wide_add(a, wide_set1(0x1.8p38)), wide_set1(0x1.8p38)), left = wide_sub(a, first);
  wide square = wide_mul(first, first), square_rest = wide_mul(left, wide_add(a, first));
  wide factor = wide_fma(square, wide_set1(GELU_CUBIC_FIRST), wide_set1(GELU_LINEAR_FIRST));
  wide factor_rest = wide_fma(square, wide_set1(GELU_CUBIC_REST), wide_set1(GELU_LINEAR_REST));
  factor_rest = wide_fma(square_rest, wide_set1(GELU_CUBIC), factor_rest);
  wide factor_first = wide_sub(wide_add(factor, wide_set1(0x1.8p24)), wide_set1(0x1.8p24));
  wide x = wide_mul(first, factor_first), rest = wide_mul(first, wide_sub(factor, factor_first));
  rest = wide_fma(left, factor, wide_fma(a, factor_rest, rest));
  x = wide_sub(wide_set1(0), x);
  wide n = REAL(exponent)(wide_sub(x, rest));
  return REAL(mirrored)(z, REAL(power)(n, wide_sub(REAL(reduce)(x, n), rest)));
#endif
}

static ALWAYS_INLINE wide REAL(gelu_tanh)(wide z, double parameter) {
  (void)parameter;
  z = wide_max(wide_set1(-CUBIC_END), z);
  split s = REAL(gelu_logistic)(z);
  return wide_mul(z, wide_div(s.part, s.whole));
}

/* With exp(z) = a / b: tanh(softplus z) = n / whole, n = a (a + 2 b), whole = n + 2 b^2. */
static ALWAYS_INLINE wide REAL(mish)(wide z, double parameter) {
  (void)parameter;
  z = wide_max(wide_set1(-REAL(LOWEST)), z);
  fraction e = REAL(exp)(wide_min(wide_set1(MISH_END), z));
  wide twice = wide_add(e.below, e.below);
  wide n = wide_mul(e.above, wide_add(e.above, twice));
  return wide_mul(z, wide_div(n, wide_fma(e.below, twice, n)));
}

/* ---- dy/dz from z */

/* s + x s (1 - s) = part (whole + x rest) / whole^2 */
static ALWAYS_INLINE wide REAL(logistic_slope)(split s, wide x) {
  return wide_div(wide_mul(s.part, wide_fma(x, s.rest, s.whole)), wide_mul(s.whole, s.whole));
}

/* `slope`, but 0 for z < -end, where it rounds to 0: times an infinite gradient the product is NaN, as for a slope in
 * lanes of floats */
static ALWAYS_INLINE wide REAL(vanishing)(wide slope, wide z, double end) {
  return wide_select(wide_gt(wide_set1(-end), z), wide_set1(0), slope);
}

/* s + z s (1 - s) (2 u)', where s is the logistic function of 2 u */
static ALWAYS_INLINE wide REAL(gelu_tanh_slope)(wide z, double parameter) {
  (void)parameter;
  const wide x = REAL(clamp)(z, CUBIC_END);
  wide inner = wide_fma(wide_mul(x, x), wide_set1(3 * GELU_CUBIC), wide_set1(GELU_LINEAR));
  return REAL(vanishing)(REAL(logistic_slope)(REAL(gelu_logistic)(x), wide_mul(x, inner)), z, CUBIC_END);
}

/* As for mish: with t = tanh(softplus z), t' = 4 e (1 + e) / (n + 2)^2 in terms of e = exp(z), so
 * t + z t' = a ((a + 2 b) whole + 4 z (a + b) b^2) / whole^2. */
static ALWAYS_INLINE wide REAL(mish_slope)(wide z, double parameter) {
  (void)parameter;
  const wide x = wide_min(wide_set1(MISH_END), wide_max(wide_set1(-REAL(LOWEST)), z));
  fraction e = REAL(exp)(x);
  wide twice = wide_add(e.below, e.below), square = wide_mul(twice, e.below), sum = wide_add(e.above, twice);
  wide whole = wide_fma(e.above, sum, square);
  wide weight = wide_mul(wide_mul(wide_add(x, x), wide_add(e.above, e.below)), square);
  wide n = wide_mul(e.above, wide_fma(sum, whole, weight));
  return REAL(vanishing)(wide_div(n, wide_mul(whole, whole)), z, REAL(LOWEST));
}

/* ---- over arrays of doubles only */

#if REAL_BITS == 64

static ALWAYS_INLINE wide REAL(elu)(wide z, double alpha) {
  wide sum;
  fraction f = REAL(expm1)(wide_max(wide_set1(-ELU_END), wide_min(wide_set1(0), z)), &sum);
  wide below = wide_mul(wide_set1(alpha), wide_div(f.above, f.below));
  return wide_select(wide_gt(z, wide_set1(0)), z, below);
}

static ALWAYS_INLINE wide REAL(selu)(wide z, double parameter) {
  (void)parameter;
  return wide_mul(wide_set1(SELU_SCALE), REAL(elu)(z, SELU_ALPHA));
}

static ALWAYS_INLINE wide REAL(gelu)(wide z, double parameter) {
  (void)parameter;
  wide density;
  fraction cdf = REAL(normal_cdf)(z, &density);
  return wide_mul(wide_max(wide_set1(-TAIL_END), z), wide_div(cdf.above, cdf.below));
}

static ALWAYS_INLINE wide REAL(softplus)(wide z, double parameter) {
  (void)parameter;
  return wide_add(wide_max(wide_set1(0), z), REAL(log1p)(REAL(decay)(z)));
}

static ALWAYS_INLINE wide REAL(sigmoid)(wide z, double parameter) {
  (void)parameter;
  split s = REAL(logistic)(z);
  return wide_div(s.part, s.whole);
}

static ALWAYS_INLINE wide REAL(logsigmoid)(wide z, double parameter) {
  return wide_sub(wide_set1(0), REAL(softplus)(wide_sub(wide_set1(0), z), parameter));
}

/* dy/dz of logsigmoid */
static ALWAYS_INLINE wide REAL(sigmoid_of_minus)(wide z, double parameter) {
  return REAL(sigmoid)(wide_sub(wide_set1(0), z), parameter);
}

static ALWAYS_INLINE wide REAL(silu)(wide z, double parameter) {
  (void)parameter;
  z = wide_max(wide_set1(-REAL(LOWEST)), z);
  split s = REAL(logistic)(z);
  return wide_mul(z, wide_div(s.part, s.whole));
}

/* tanh |z| = (exp(2 |z|) - 1) / (exp(2 |z|) + 1) */
static ALWAYS_INLINE wide REAL(tanh)(wide z, double parameter) {
  (void)parameter;
  wide a = wide_min(wide_set1(TANH_END), wide_abs(z)), sum;
  fraction f = REAL(expm1)(wide_add(a, a), &sum);
  wide y = wide_div(f.above, sum);
  return wide_select(wide_gt(wide_set1(0), z), wide_sub(wide_set1(0), y), y);
}

static ALWAYS_INLINE wide REAL(elu_slope)(wide z, double alpha) {
  fraction e = REAL(exp)(wide_max(wide_set1(-REAL(LOWEST)), wide_min(wide_set1(0), z)));
  /* Both sides of the fraction are divided by 4: near 0 the numerator is above 2, and alpha times it might overflow. */
  wide below = wide_div(wide_mul(wide_set1(alpha / 4), e.above), wide_mul(wide_set1(0.25), e.below));
  return wide_select(wide_gt(z, wide_set1(0)), wide_set1(1), below);
}

static ALWAYS_INLINE wide REAL(selu_slope)(wide z, double parameter) {
  (void)parameter;
  return wide_mul(wide_set1(SELU_SCALE), REAL(elu_slope)(z, SELU_ALPHA));
}

/* Phi(z) + z phi(z) */
static ALWAYS_INLINE wide REAL(gelu_slope)(wide z, double parameter) {
  (void)parameter;
  wide density;
  fraction cdf = REAL(normal_cdf)(z, &density);
  wide weight = wide_mul(REAL(clamp)(z, TAIL_END), wide_set1(INVERSE_SQRT_2PI));
  return wide_div(wide_fma(weight, density, cdf.above), cdf.below);
}

static ALWAYS_INLINE wide REAL(silu_slope)(wide z, double parameter) {
  (void)parameter;
  z = REAL(clamp)(z, REAL(LOWEST));
  return REAL(logistic_slope)(REAL(logistic)(z), z);
}

#endif

/* ---- over arrays */

WIDE_FORWARD(gelu_tanh, REAL(gelu_tanh))
WIDE_BACKWARD(gelu_tanh, REAL(gelu_tanh_slope))
WIDE_FORWARD(mish, REAL(mish))
WIDE_BACKWARD(mish, REAL(mish_slope))
#if REAL_BITS == 64
WIDE_FORWARD(elu, REAL(elu))
WIDE_BACKWARD(elu, REAL(elu_slope))
WIDE_FORWARD(selu, REAL(selu))
WIDE_BACKWARD(selu, REAL(selu_slope))
WIDE_FORWARD(gelu, REAL(gelu))
WIDE_BACKWARD(gelu, REAL(gelu_slope))
WIDE_FORWARD(silu, REAL(silu))
WIDE_BACKWARD(silu, REAL(silu_slope))
WIDE_FORWARD(softplus, REAL(softplus))
WIDE_BACKWARD(softplus, REAL(sigmoid))
WIDE_FORWARD(logsigmoid, REAL(logsigmoid))
WIDE_BACKWARD(logsigmoid, REAL(sigmoid_of_minus))
WIDE_FORWARD(sigmoid, REAL(sigmoid))
WIDE_FORWARD(tanh, REAL(tanh))
#endif

#undef WIDE_FORWARD
#undef WIDE_BACKWARD
#undef CUBIC_END
