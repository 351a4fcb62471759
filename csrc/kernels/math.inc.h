/* Exponentials and their relatives over vectors of doubles, good enough for arrays of REAL_BITS: included once for
 * each.  The coefficients for 32 bits leave an error of less than 1/30 ULP of a float, so that a float result is the exact
 * one rounded, but for rare near-ties; those for 64 bits leave the roundings of the steps, a few ULP of a double.
 * NaN goes through everything here: vec_min and vec_max return their second operand where one is NaN. */

#if REAL_BITS == 32
#define TABLE(name) name##_f32
#else
#define TABLE(name) name##_f64
#endif
#define DEGREE(table) ((int)(sizeof(table) / sizeof(*table)) - 1)

/* exp(-LOWEST) * LOWEST and Phi(-TAIL_END) * TAIL_END round to 0, as does exp of the exponent of gelu_tanh at
 * CUBIC_END; the reduction of the argument of exp holds to 800. */
#if REAL_BITS == 32
#define LOWEST 120.0
#define TAIL_END 15.0
#define CUBIC_END 12.0
#else
#define LOWEST 760.0
#define TAIL_END 39.0
#define CUBIC_END 22.0
#endif

/* min(max(x, -limit), limit) */
static ALWAYS_INLINE vec REAL(clamp)(vec x, double limit) {
  return vec_min(vec_set1(limit), vec_max(vec_set1(-limit), x));
}

/* c[0] + c[1] x + ... + c[degree] x^degree */
static ALWAYS_INLINE vec REAL(polynomial)(int degree, const double *c, vec x) {
  vec sum = vec_set1(c[degree]);
  UNROLL
  for (int i = degree - 1; i >= 0; i--) sum = vec_fma(sum, x, vec_set1(c[i]));
  return sum;
}

/* x + low = n ln 2 + r with |r| <= ln(2) / 2: returns exp(r) - 1, and n */
static ALWAYS_INLINE vec REAL(reduced_expm1)(vec x, vec low, vec *n) {
  *n = vec_round(vec_mul(x, vec_set1(0x1.71547652b82fep+0)));
#if REAL_BITS == 32
  vec r = vec_fma(*n, vec_set1(-0x1.62e42fefa39efp-1), x);
#else
  /* ln 2 in two parts: n times the first, of 32 bits, is exact */
  vec r = vec_fma(*n, vec_set1(-0x1.62e42feep-1), x);
  r = vec_fma(*n, vec_set1(-0x1.a39ef35793c76p-33), r);
#endif
  r = vec_add(r, low);
  return vec_fma(vec_mul(r, r), REAL(polynomial)(DEGREE(TABLE(exp_q)), TABLE(exp_q), r), r);
}

/* a 2^n; for floats 2^n is a normal double, for doubles it may be too large or too small for one */
static ALWAYS_INLINE vec REAL(scale)(vec a, vec n) {
#if REAL_BITS == 32
  return vec_scale2(a, n);
#else
  vec half = vec_round(vec_mul(n, vec_set1(0.5)));
  return vec_scale2(vec_scale2(a, half), vec_sub(n, half));
#endif
}

/* exp(x + low), |x| <= LOWEST, low much smaller than 1 */
static ALWAYS_INLINE vec REAL(exp_sum)(vec x, vec low) {
  vec n, m = REAL(reduced_expm1)(x, low, &n);
  return REAL(scale)(vec_add(vec_set1(1), m), n);
}

static ALWAYS_INLINE vec REAL(exp)(vec x) { return REAL(exp_sum)(x, vec_set1(0)); }

/* exp(-|z|) */
static ALWAYS_INLINE vec REAL(decay)(vec z) {
  return REAL(exp)(vec_max(vec_set1(-LOWEST), vec_sub(vec_set1(0), vec_abs(z))));
}

/* exp(x) - 1, |x| <= 100 */
static ALWAYS_INLINE vec REAL(expm1)(vec x) {
  vec n, m = REAL(reduced_expm1)(x, vec_set1(0), &n);
  vec power = vec_scale2(vec_set1(1), n);
  return vec_fma(m, power, vec_sub(power, vec_set1(1)));
}

/* log(1 + e), 0 <= e <= 1 */
static ALWAYS_INLINE vec REAL(log1p)(vec e) {
  vec s = vec_div(e, vec_add(vec_set1(2), e));
  vec w = vec_mul(s, s), twice = vec_add(s, s);
  vec p = REAL(polynomial)(DEGREE(TABLE(log1p_p)), TABLE(log1p_p), w);
  return vec_fma(vec_mul(twice, w), p, twice);
}

/* 1 / (1 + exp(-z)), and 1 minus that */
static ALWAYS_INLINE vec REAL(logistic)(vec z, vec *complement) {
  vec e = REAL(decay)(z);
  vec above = vec_div(vec_set1(1), vec_add(vec_set1(1), e)); /* the larger of the two */
  vec below = vec_mul(e, above);
  mask negative = mask_gt(vec_set1(0), z);
  *complement = vec_select(negative, above, below);
  return vec_select(negative, below, above);
}

/* exp(-a^2 / 2), 0 <= a <= TAIL_END */
static ALWAYS_INLINE vec REAL(gaussian)(vec a) {
#if REAL_BITS == 32
  return REAL(exp)(vec_mul(vec_mul(vec_set1(-0.5), a), a));
#else
  /* an error in a^2 of half an ULP would be one of 400 ULP in the result: the square of a's first 26 bits is exact */
  vec high = vec_sub(vec_add(a, vec_set1(0x1.8p32)), vec_set1(0x1.8p32));
  vec rest = vec_mul(vec_sub(a, high), vec_add(a, high));
  return REAL(exp_sum)(vec_mul(vec_mul(vec_set1(-0.5), high), high), vec_mul(vec_set1(-0.5), rest));
#endif
}

/* Phi(z), the normal distribution function, to relative accuracy on both sides; density gets exp(-z^2 / 2) */
static ALWAYS_INLINE vec REAL(normal_cdf)(vec z, vec *density) {
  vec a = vec_min(vec_set1(TAIL_END), vec_abs(z));
  *density = REAL(gaussian)(a);
  vec p = REAL(polynomial)(DEGREE(TABLE(tail_p)), TABLE(tail_p), a);
  vec q = REAL(polynomial)(DEGREE(TABLE(tail_q)), TABLE(tail_q), a);
  vec tail = vec_mul(*density, vec_div(p, q));
  return vec_select(mask_gt(vec_set1(0), z), tail, vec_sub(vec_set1(1), tail));
}

#undef TABLE
