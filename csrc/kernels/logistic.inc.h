/* sigmoid, silu and tanh in lanes of floats, to less than 2 ULP over all of them: 1.8, 1.8 and 1.4.
 *
 * With exp(x) = 2^n (1 + t), 1 + exp(x) = 1 + 2^n + 2^n t, where powers of two are exact, carries fewer roundings than
 * a sum with a rounded exponential: that of t, of at most a quarter of an ULP of 1 + t, and its own. */
#include "coefficients.h"

/* sigmoid(z) rounds to 1 from here on */
#define LOGISTIC_END 30.0f
/* exp(-LOWEST_FLOAT) * LOWEST_FLOAT rounds to 0 */
#define LOWEST_FLOAT 120.0f
/* tanh(z) rounds to 1 from here on */
#define TANH_FLOAT_END 10.0f
/* tanh(z) is a polynomial up to here */
#define TANH_MIDDLE 0.55f

/* c[0] + c[1] x + ... + c[degree] x^degree */
static ALWAYS_INLINE vec float_polynomial(int degree, const double *c, vec x) {
  vec sum = vec_set1((real)c[degree]);
  UNROLL
  for (int i = degree - 1; i >= 0; i--) sum = vec_fma(sum, x, vec_set1((real)c[i]));
  return sum;
}
#define FLOAT_POLYNOMIAL(table, x) float_polynomial((int)(sizeof(table) / sizeof(*table)) - 1, table, x)

/* t with exp(x) = 2^n (1 + t), sqrt(1/2) <= 1 + t <= sqrt(2); |x| <= LOWEST_FLOAT */
static ALWAYS_INLINE vec float_exp(vec x, vec *n) {
  *n = vec_round(vec_mul(x, vec_set1(0x1.715476p+0f)));
  /* ln 2 in two parts: n times the first, of 16 bits, is exact, and so is what it leaves of x */
  vec r = vec_fma(*n, vec_set1(-0x1.62e4p-1f), x);
  r = vec_fma(*n, vec_set1(-0x1.7f7d1cp-20f), r);
  return vec_fma(vec_mul(r, r), FLOAT_POLYNOMIAL(exp_p, r), r);
}

/* one + power (1 + t), one and power being powers of two.  What their own sum rounds away, where power is some 2^24
 * times one, joins power t. */
static ALWAYS_INLINE vec float_sum(vec one, vec power, vec t) {
  vec sum = vec_add(one, power), rest = vec_sub(one, vec_sub(sum, power));
  return vec_add(vec_fma(power, t, rest), sum);
}

/* 1 / (1 + exp(-z)), all divided by 2^64 so that exp(-z) is no infinity */
static ALWAYS_INLINE vec sigmoid_lanes(vec z, vec slope) {
  (void)slope;
  z = vec_max(vec_set1(-LOWEST_FLOAT), vec_min(vec_set1(LOGISTIC_END), z));
  vec n, t = float_exp(vec_sub(vec_set1(0), z), &n);
  vec one = vec_set1(0x1p-64f), power = vec_scale2(vec_set1(1), vec_sub(n, vec_set1(64)));
  return vec_div(one, float_sum(one, power, t));
}

/* z / (1 + exp(-z)); for exp(-z) > 2^100 the rest of its power of two divides at the end */
static ALWAYS_INLINE vec silu_lanes(vec z, vec slope) {
  (void)slope;
  z = vec_max(vec_set1(-LOWEST_FLOAT), z);
  vec n, t = float_exp(vec_sub(vec_set1(0), vec_min(vec_set1(LOGISTIC_END), z)), &n);
  vec most = vec_min(vec_set1(100), n), power = vec_scale2(vec_set1(1), most);
  vec y = vec_div(z, float_sum(vec_set1(1), power, t));
  return vec_scale2(y, vec_sub(most, n));
}

/* z + z^3 p(z^2) in the middle, and outside 1 - 2 / (exp(2 |z|) + 1) with the sign of z */
static ALWAYS_INLINE vec tanh_lanes(vec z, vec slope) {
  (void)slope;
  vec w = vec_mul(z, z), middle = vec_fma(vec_mul(z, w), FLOAT_POLYNOMIAL(tanh_p, w), z);
  vec a = vec_min(vec_set1(TANH_FLOAT_END), vec_abs(z));
  vec n, t = float_exp(vec_add(a, a), &n), power = vec_scale2(vec_set1(1), n);
  vec rest = vec_div(vec_set1(2), vec_fma(power, t, vec_add(vec_set1(1), power)));
  vec y = vec_sub(vec_set1(1), rest);
  vec outside = vec_select(mask_gt(vec_set1(0), z), vec_sub(vec_set1(0), y), y);
  return vec_select(mask_gt(a, vec_set1(TANH_MIDDLE)), outside, middle);
}
