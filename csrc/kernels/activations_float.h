/* The activations with an exponential in lanes of floats, to less than 2 ULP (gelu without FMA 2.13).  Those that do
 * not hold that here are in smooth.inc.h: gelu_tanh, the derivative of mish, and mish itself where a look-up in two
 * tables is slower than lanes of doubles.
 *
 * With E = 2^n (1 + t) an exponential, q E is q + q t with its exponent raised, and 1 + E is 1 + 2^n + 2^n t, where
 * powers of two are exact.  That carries fewer roundings than a rounded exponential would: that of t, whose magnitude
 * is below 0.42 and its rounding below 2^-26, and that of the sum.
 *
 * gelu(z), softplus(z) and mish(z) are, with a = |z|, max(z, 0) less E(a) q(a), where q (of mish two, one a side)
 * changes so little that a polynomial on each of 16 intervals has it to half an ULP.  The derivatives of those and of
 * silu add up to 1 at z and -z. */
#include "kernels/wide_map.h"

/* exp(-LOWEST) * LOWEST rounds to 0, and Phi(-TAIL_END) * TAIL_END. */
#define LOWEST 120.0f
#define TAIL_END 14.75f
/* Where sigmoid(z) is 1. */
#define LOGISTIC_END 30.0f
/* Where exp(-z) - 1 is -1, and where tanh(z) is 1. */
#define ELU_END 40.0f
#define TANH_END 9.2f
/* 2^(n + RAISED) is a normal number for every n of an exponential; LOWERED takes that back */
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

/* the function of p, 1 <= 1 + scale a < 16 */
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
  /* ln 2 in two parts: n times the first, of 16 bits, is exact, and so is what it leaves of x */
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

/* the same for exp(-a^2 / 2), 0 <= a <= TAIL_END */
static ALWAYS_INLINE wide gaussian(wide a, wide *n) {
  /* an error of half an ULP in a^2 would be one of 60 ULP in the result: the square of a's first 12 bits is exact */
  wide first = wide_sub(wide_add(a, wide_set1(0x1.8p15f)), wide_set1(0x1.8p15f));
  wide rest = wide_mul(wide_sub(a, first), wide_add(a, first)), square = wide_mul(first, first);
  *n = wide_round(wide_mul(square, wide_set1(-0x1.715476p-1f)));
  /* as in reduce(), of twice the exponent with the other sign */
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

/* 2^(n + RAISED) (1 + t) q, what is small beside q added up first: q rounded, and then q + q t rounded to a lower power
 * of two, would be off by another ULP */
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

/* tail on the left, 1 - tail on the right */
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

/* one + power (1 + t), one and power being powers of two.  What their own sum rounds away, where power is some 2^24
 * times one, joins power t. */
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
  /* On the left c[0] is 0 in the first and in the last interval, whose tables leave a / 2 out: there this is a / 2.  In
   * the others c[0] is larger, and on the right -z / 2 is negative. */
  wide first = wide_lookup_two(right->rows[1], left->rows[1], interval);
  return (struct steps){wide_max(wide_mul(wide_set1(-0.5f), z), first), d, sum};
}

/* 65536 elements took 25.9 us in lanes of doubles, and take 19.2 (Zen 5, AVX-512). */
static ALWAYS_INLINE wide mish(wide z, double parameter) {
  (void)parameter;
  z = wide_max(wide_set1(-LOWEST), z);
  wide a = magnitude(z, LOWEST), n, t = exponential(wide_sub(wide_set1(0), a), &n);
  return less_tail(z, raised_steps(mish_steps(z, a), t, n));
}
#endif

/* z / (1 + exp(-z)); for exp(-z) > 2^100 the rest of its power of two divides at the end */
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

/* 1 / (1 + exp(-z)), all divided by 2^64 so that exp(-z) is no infinity */
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
  /* z + z^3 p(z^2) up to tanh(z) = 1/2, and from there on 1 - 2 / (exp(2 |z|) + 1) */
  wide w = wide_mul(z, z), middle = wide_fma(wide_mul(z, w), POLYNOMIAL(tanh_p, w), z);
  wide a = magnitude(z, TANH_END), n, t = exponential(wide_add(a, a), &n), power = wide_scale2(wide_set1(1), n);
  wide rest = wide_div(wide_set1(2), wide_fma(power, t, wide_add(wide_set1(1), power)));
  wide outside = wide_sign(wide_sub(wide_set1(1), rest), z);
  return wide_select(wide_gt(a, wide_set1(0.55f)), outside, middle);
#endif
}

/* a c, c in two parts; a finite */
static ALWAYS_INLINE wide scaled(wide a, double c) {
  real first = (real)c, rest = isinf(first) ? 0 : (real)(c - (double)first);
  return wide_fma(a, wide_set1(first), wide_mul(a, wide_set1(rest)));
}

/* exp(z) - 1, z <= 0: with a power of two less 1, which is exact or -1, for a first term */
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
  wide above = scaled(wide_min(wide_set1(FLT_MAX), z), SELU_SCALE);
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

/* right where z > 0, left exp(z) elsewhere */
static ALWAYS_INLINE wide exponential_slope(wide z, double right, double left) {
  wide x = wide_max(wide_set1(-LOWEST), wide_min(wide_set1(0), z)), n, t = exponential(x, &n);
  /* 2^n may be too small for a float: the factor is multiplied in before it, and by (1 + t) / 2, so that the largest
   * does not overflow. */
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
