/* Exponentials and related functions in lanes of doubles, accurate enough for arrays of REAL_BITS.  The float64
 * translation unit of an ISA includes this file for both element types.  The tables for 32 bits have an error of less
 * than 1/100 ULP of a float, so a float result is the exact one rounded, except for rare near-ties.  With the tables
 * for 64 bits only the roundings of the steps remain, a few ULP of a double.
 *
 * Every user of exp divides, so exp is returned as a fraction, and the two divisions become one: with
 * c = r coth(r / 2), exp(r) = (c + r) / (c - r), and c is nearly linear in r^2.
 * NaN passes through every function: vec_min and vec_max return their second operand where one is NaN. */
#ifndef REAL_BITS
#define EDITOR_BITS 64
#include "kernels/editor.h"
#endif

#if (REAL_BITS == 32 && !defined(FA_EXP_DOUBLE_32)) || (REAL_BITS == 64 && !defined(FA_EXP_DOUBLE_64))
#if REAL_BITS == 32
#define FA_EXP_DOUBLE_32
#define TABLE(name) name##_f32
#else
#define FA_EXP_DOUBLE_64
#define TABLE(name) name##_f64
#endif

#include "kernels/coefficients.h"
#include "kernels/wide.h"

/* With LOWEST for the element type, exp(-LOWEST) * LOWEST rounds to 0; Phi(-TAIL_END) * TAIL_END rounds to 0. */
#define LOWEST_f32 120.0
#define LOWEST_f64 760.0
#define TAIL_END 39.0

/* min(max(x, -limit), limit) */
static ALWAYS_INLINE wide REAL(clamp)(wide x, double limit) {
  return wide_min(wide_set1(limit), wide_max(wide_set1(-limit), x));
}

/* c[0] + c[1] x + ... + c[degree] x^degree */
static ALWAYS_INLINE wide REAL(polynomial)(int degree, const double *c, wide x) {
  wide sum = wide_set1(c[degree]);
  UNROLL
  for (int i = degree - 1; i >= 0; i--) sum = wide_fma(sum, x, wide_set1(c[i]));
  return sum;
}
#define POLYNOMIAL(table, x) REAL(polynomial)((int)(sizeof(TABLE(table)) / sizeof(*TABLE(table))) - 1, TABLE(table), x)

/* n with x = n ln 2 + r and |r| <= ln(2) / 2 */
static ALWAYS_INLINE wide REAL(exponent)(wide x) { return wide_round(wide_mul(x, wide_set1(0x1.71547652b82fep+0))); }

/* r of x = n ln 2 + r; |x| < 1024 */
static ALWAYS_INLINE wide REAL(reduce)(wide x, wide n) {
#if REAL_BITS == 32
  return wide_fma(n, wide_set1(-0x1.62e42fefa39efp-1), x);
#else
  /* ln 2 in two parts.  The first has 32 bits, so n times it is exact. */
  wide r = wide_fma(n, wide_set1(-0x1.62e42feep-1), x);
  return wide_fma(n, wide_set1(-0x1.a39ef35793c76p-33), r);
#endif
}

/* a 2^n.  For floats 2^n is a normal double; for doubles it may be below the normal numbers. */
static ALWAYS_INLINE wide REAL(scale)(wide a, wide n) {
#if REAL_BITS == 32
  return wide_scale2(a, n);
#else
  wide half = wide_round(wide_mul(n, wide_set1(0.5)));
  return wide_scale2(wide_scale2(a, half), wide_sub(n, half));
#endif
}

/* r coth(r / 2) */
static ALWAYS_INLINE wide REAL(coth_factor)(wide r) {
  wide w = wide_mul(r, r);
  return wide_fma(w, POLYNOMIAL(coth_p, w), wide_set1(2));
}

/* 2^n exp(r) */
static ALWAYS_INLINE fraction REAL(power)(wide n, wide r) {
  wide c = REAL(coth_factor)(r);
  return (fraction){REAL(scale)(wide_add(c, r), n), wide_sub(c, r)};
}

static ALWAYS_INLINE fraction REAL(exp)(wide x) {
  wide n = REAL(exponent)(x);
  return REAL(power)(n, REAL(reduce)(x, n));
}

#if REAL_BITS == 32
static ALWAYS_INLINE split REAL(logistic)(wide z) {
  fraction e = REAL(exp)(REAL(clamp)(z, REAL(LOWEST)));
  return (split){e.above, e.below, wide_add(e.above, e.below)};
}
#else

/* exp(-|z|) */
static ALWAYS_INLINE fraction REAL(decay)(wide z) {
  return REAL(exp)(wide_max(wide_set1(-REAL(LOWEST)), wide_sub(wide_set1(0), wide_abs(z))));
}

/* part / whole = 1 / (1 + exp(-z)), and rest / whole = 1 / (1 + exp(z)); e = exp(-|z|) */
static ALWAYS_INLINE split REAL(mirrored)(wide z, fraction e) {
  wide_mask negative = wide_gt(wide_set1(0), z);
  return (split){wide_select(negative, e.above, e.below), wide_select(negative, e.below, e.above),
                 wide_add(e.above, e.below)};
}

/* exp(z) itself may be too large for a double */
static ALWAYS_INLINE split REAL(logistic)(wide z) { return REAL(mirrored)(z, REAL(decay)(z)); }

/* exp(x) - 1, |x| <= 100.  *sum becomes the numerator of exp(x) + 1, over the same denominator.  With e = 2^n the
 * numerators are e (c + r) -/+ (c - r), computed without cancellation. */
static ALWAYS_INLINE fraction REAL(expm1)(wide x, wide *sum) {
  wide n = REAL(exponent)(x), r = REAL(reduce)(x, n), c = REAL(coth_factor)(r);
  wide e = wide_scale2(wide_set1(1), n);
  wide more = wide_add(e, wide_set1(1)), less = wide_sub(e, wide_set1(1));
  *sum = wide_fma(more, c, wide_mul(less, r));
  return (fraction){wide_fma(less, c, wide_mul(more, r)), wide_sub(c, r)};
}

/* log(1 + e) = 2 artanh(s) with s = e / (2 + e), 0 <= e <= 1 */
static ALWAYS_INLINE wide REAL(log1p)(fraction e) {
  wide s = wide_div(e.above, wide_fma(wide_set1(2), e.below, e.above));
  wide w = wide_mul(s, s), twice = wide_add(s, s);
  return wide_fma(wide_mul(twice, w), POLYNOMIAL(log1p_p, w), twice);
}

/* exp(-a^2 / 2), 0 <= a <= TAIL_END */
static ALWAYS_INLINE fraction REAL(gaussian)(wide a) {
  /* An error of half an ULP in a^2 would become 400 ULP in the result.  The square of a's first 26 bits is exact. */
  wide first = wide_sub(wide_add(a, wide_set1(0x1.8p32)), wide_set1(0x1.8p32));
  wide rest = wide_mul(wide_sub(a, first), wide_add(a, first));
  wide x = wide_mul(wide_mul(wide_set1(-0.5), first), first), n = REAL(exponent)(x);
  return REAL(power)(n, wide_fma(wide_set1(-0.5), rest, REAL(reduce)(x, n)));
}

/* The normal distribution function Phi(z) as above / below, to relative accuracy on both sides of 0.  *density becomes
 * the numerator of exp(-z^2 / 2), over the same denominator. */
static ALWAYS_INLINE fraction REAL(normal_cdf)(wide z, wide *density) {
  wide a = wide_min(wide_set1(TAIL_END), wide_abs(z));
  fraction e = REAL(gaussian)(a);
  wide q = POLYNOMIAL(tail_q, a);
  wide tail = wide_mul(e.above, POLYNOMIAL(tail_p, a)), whole = wide_mul(e.below, q);
  *density = wide_mul(e.above, q);
  return (fraction){wide_select(wide_gt(wide_set1(0), z), tail, wide_sub(whole, tail)), whole};
}

#endif

#undef POLYNOMIAL
#undef TABLE

#endif
