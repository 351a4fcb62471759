/* The activations with an exponential, over arrays of REAL_BITS, computed in lanes of doubles.
 *
 * In float lanes alone none of them holds 2 ULP without a second word for the rounding errors, which costs about as much
 * as the wider lanes; in these, a float needs no care about overflow, cancellation or subnormal results. */
#include "math.inc.h"

/* 2 sqrt(2 / pi) */
#define GELU_LINEAR 1.5957691216057307
#define GELU_CUBIC (0.044715 * GELU_LINEAR)
#define INVERSE_SQRT_2PI 0.3989422804014327
#define SELU_ALPHA 1.6732632423543772848170429916717
#define SELU_SCALE 1.0507009873554804934193349852946

/* Where tanh(softplus(z)) is 1, and where exp(z) - 1 is -1. */
#define MISH_END 40.0
#define ELU_END 40.0
/* Where tanh is 1. */
#define TANH_END 20.0

/* ---- y from z */

static ALWAYS_INLINE vec REAL(elu)(vec z, double alpha) {
  vec below = REAL(expm1)(vec_max(vec_set1(-ELU_END), vec_min(vec_set1(0), z)));
  return vec_select(mask_gt(z, vec_set1(0)), z, vec_mul(vec_set1(alpha), below));
}

static ALWAYS_INLINE vec REAL(selu)(vec z, double parameter) {
  (void)parameter;
  return vec_mul(vec_set1(SELU_SCALE), REAL(elu)(z, SELU_ALPHA));
}

static ALWAYS_INLINE vec REAL(gelu)(vec z, double parameter) {
  (void)parameter;
  vec density, cdf = REAL(normal_cdf)(z, &density);
  return vec_mul(vec_max(vec_set1(-TAIL_END), z), cdf);
}

/* z / 2 (1 + tanh u) = z / (1 + exp(-2 u)), u = sqrt(2 / pi) (z + 0.044715 z^3): returns 2 u */
static ALWAYS_INLINE vec REAL(gelu_exponent)(vec z) {
  return vec_mul(z, vec_fma(vec_mul(z, z), vec_set1(GELU_CUBIC), vec_set1(GELU_LINEAR)));
}

static ALWAYS_INLINE vec REAL(gelu_tanh)(vec z, double parameter) {
  (void)parameter;
  vec complement;
  z = vec_max(vec_set1(-CUBIC_END), z);
  return vec_mul(z, REAL(logistic)(REAL(gelu_exponent)(z), &complement));
}

static ALWAYS_INLINE vec REAL(silu)(vec z, double parameter) {
  (void)parameter;
  vec complement;
  z = vec_max(vec_set1(-LOWEST), z);
  return vec_mul(z, REAL(logistic)(z, &complement));
}

static ALWAYS_INLINE vec REAL(softplus)(vec z, double parameter) {
  (void)parameter;
  return vec_add(vec_max(vec_set1(0), z), REAL(log1p)(REAL(decay)(z)));
}

/* tanh(softplus z) = n / (n + 2) with n = e (e + 2), e = exp z */
static ALWAYS_INLINE vec REAL(mish)(vec z, double parameter) {
  (void)parameter;
  z = vec_max(vec_set1(-LOWEST), z);
  vec two = vec_set1(2);
  vec e = REAL(exp)(vec_min(vec_set1(MISH_END), z));
  vec n = vec_mul(e, vec_add(e, two));
  return vec_mul(z, vec_div(n, vec_add(n, two)));
}

static ALWAYS_INLINE vec REAL(sigmoid)(vec z, double parameter) {
  (void)parameter;
  vec complement;
  return REAL(logistic)(z, &complement);
}

/* with t = exp(2 |z|) - 1, tanh |z| = t / (t + 2) */
static ALWAYS_INLINE vec REAL(tanh)(vec z, double parameter) {
  (void)parameter;
  vec a = vec_min(vec_set1(TANH_END), vec_abs(z));
  vec t = REAL(expm1)(vec_add(a, a));
  vec y = vec_div(t, vec_add(t, vec_set1(2)));
  return vec_select(mask_gt(vec_set1(0), z), vec_sub(vec_set1(0), y), y);
}

/* ---- dy/dz from z */

static ALWAYS_INLINE vec REAL(elu_slope)(vec z, double alpha) {
  vec below = REAL(exp)(vec_max(vec_set1(-LOWEST), vec_min(vec_set1(0), z)));
  return vec_select(mask_gt(z, vec_set1(0)), vec_set1(1), vec_mul(vec_set1(alpha), below));
}

static ALWAYS_INLINE vec REAL(selu_slope)(vec z, double parameter) {
  (void)parameter;
  return vec_mul(vec_set1(SELU_SCALE), REAL(elu_slope)(z, SELU_ALPHA));
}

/* Phi(z) + z phi(z) */
static ALWAYS_INLINE vec REAL(gelu_slope)(vec z, double parameter) {
  (void)parameter;
  vec density, cdf = REAL(normal_cdf)(z, &density);
  vec weighted = vec_mul(REAL(clamp)(z, TAIL_END), vec_set1(INVERSE_SQRT_2PI));
  return vec_fma(weighted, density, cdf);
}

/* s + z s (1 - s) (2 u)' with s the logistic function of 2 u */
static ALWAYS_INLINE vec REAL(gelu_tanh_slope)(vec z, double parameter) {
  (void)parameter;
  z = REAL(clamp)(z, CUBIC_END);
  vec complement, s = REAL(logistic)(REAL(gelu_exponent)(z), &complement);
  vec inner = vec_fma(vec_mul(z, z), vec_set1(3 * GELU_CUBIC), vec_set1(GELU_LINEAR));
  return vec_fma(vec_mul(vec_mul(z, s), complement), inner, s);
}

/* s + z s (1 - s) with s the logistic function of z */
static ALWAYS_INLINE vec REAL(silu_slope)(vec z, double parameter) {
  (void)parameter;
  z = REAL(clamp)(z, LOWEST);
  vec complement, s = REAL(logistic)(z, &complement);
  return vec_fma(vec_mul(z, s), complement, s);
}

static ALWAYS_INLINE vec REAL(softplus_slope)(vec z, double parameter) { return REAL(sigmoid)(z, parameter); }

/* With e = exp z and d = n + 2 = e^2 + 2 e + 2: tanh(softplus z) = e (e + 2) / d, whose derivative is
 * 4 e (1 + e) / d^2. */
static ALWAYS_INLINE vec REAL(mish_slope)(vec z, double parameter) {
  (void)parameter;
  z = vec_min(vec_set1(MISH_END), vec_max(vec_set1(-LOWEST), z));
  vec two = vec_set1(2);
  vec e = REAL(exp)(z);
  vec above = vec_add(e, two);
  vec d = vec_fma(e, above, two);
  vec sum = vec_fma(vec_mul(vec_set1(4), z), vec_add(vec_set1(1), e), vec_mul(above, d));
  return vec_div(vec_mul(e, sum), vec_mul(d, d));
}

/* ---- loops over arrays */

static ALWAYS_INLINE vec REAL(load_doubles)(const real *p) {
#if REAL_BITS == 32
  return vec_load_f32(p);
#else
  return vec_load(p);
#endif
}

static ALWAYS_INLINE void REAL(store_doubles)(real *p, vec a) {
#if REAL_BITS == 32
  vec_store_f32(p, a);
#else
  vec_store(p, a);
#endif
}

typedef vec REAL(formula)(vec z, double parameter);

/* y = f(z); y may be z */
static ALWAYS_INLINE void REAL(map)(REAL(formula) * f, double parameter, const real *z, real *y, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) REAL(store_doubles)(y + i, f(REAL(load_doubles)(z + i), parameter));
  if (i < n) {
    real rest[LANES] = {0};
    memcpy(rest, z + i, (size_t)(n - i) * sizeof(real));
    REAL(store_doubles)(rest, f(REAL(load_doubles)(rest), parameter));
    memcpy(y + i, rest, (size_t)(n - i) * sizeof(real));
  }
}

/* grad_z = grad_y f(z); grad_z may be grad_y or z */
static ALWAYS_INLINE void REAL(chain)(REAL(formula) * f, double parameter, const real *grad_y, const real *z,
                                      real *grad_z, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec slope = f(REAL(load_doubles)(z + i), parameter);
    REAL(store_doubles)(grad_z + i, vec_mul(REAL(load_doubles)(grad_y + i), slope));
  }
  if (i < n) {
    real rest[LANES] = {0}, grad[LANES] = {0};
    memcpy(rest, z + i, (size_t)(n - i) * sizeof(real));
    memcpy(grad, grad_y + i, (size_t)(n - i) * sizeof(real));
    vec slope = f(REAL(load_doubles)(rest), parameter);
    REAL(store_doubles)(grad, vec_mul(REAL(load_doubles)(grad), slope));
    memcpy(grad_z + i, grad, (size_t)(n - i) * sizeof(real));
  }
}

static void REAL(smooth)(int activation, double parameter, const real *z, real *y, int64_t n) {
  switch (activation) {
    case FA_ELU: REAL(map)(REAL(elu), parameter, z, y, n); break;
    case FA_SELU: REAL(map)(REAL(selu), parameter, z, y, n); break;
    case FA_GELU: REAL(map)(REAL(gelu), parameter, z, y, n); break;
    case FA_GELU_TANH: REAL(map)(REAL(gelu_tanh), parameter, z, y, n); break;
    case FA_SILU: REAL(map)(REAL(silu), parameter, z, y, n); break;
    case FA_SOFTPLUS: REAL(map)(REAL(softplus), parameter, z, y, n); break;
    case FA_MISH: REAL(map)(REAL(mish), parameter, z, y, n); break;
    case FA_SIGMOID: REAL(map)(REAL(sigmoid), parameter, z, y, n); break;
    default: REAL(map)(REAL(tanh), parameter, z, y, n); break;
  }
}

static void REAL(smooth_backward)(int activation, double parameter, const real *grad_y, const real *z, real *grad_z,
                                  int64_t n) {
  switch (activation) {
    case FA_ELU: REAL(chain)(REAL(elu_slope), parameter, grad_y, z, grad_z, n); break;
    case FA_SELU: REAL(chain)(REAL(selu_slope), parameter, grad_y, z, grad_z, n); break;
    case FA_GELU: REAL(chain)(REAL(gelu_slope), parameter, grad_y, z, grad_z, n); break;
    case FA_GELU_TANH: REAL(chain)(REAL(gelu_tanh_slope), parameter, grad_y, z, grad_z, n); break;
    case FA_SILU: REAL(chain)(REAL(silu_slope), parameter, grad_y, z, grad_z, n); break;
    case FA_SOFTPLUS: REAL(chain)(REAL(softplus_slope), parameter, grad_y, z, grad_z, n); break;
    default: REAL(chain)(REAL(mish_slope), parameter, grad_y, z, grad_z, n); break;
  }
}

#undef LOWEST
#undef TAIL_END
#undef CUBIC_END
