/* Steps of an optimiser over arrays: each element is read once and written once.  Hyper-parameters are doubles, rounded
 * to `real` once a call. */
#ifndef FA_OPTIMIZERS_H
#define FA_OPTIMIZERS_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/rest.h"

/* grad + decay data.  Without decay data has no part in the sum: infinite data times 0 would be NaN. */
static ALWAYS_INLINE vec decayed(vec grad, vec data, real decay) {
  return decay != 0 ? vec_fma(vec_set1(decay), data, grad) : grad;
}

/* struct beside in `real` */
struct beside_factors {
  real clip, shrink, new_share;
  real *average, *cleared;
};

/* Nothing beside the rule. */
static const struct beside_factors alone = {.clip = 1};

static ALWAYS_INLINE struct beside_factors beside_in_real(const struct beside *beside) {
  return (struct beside_factors){(real)beside->clip, (real)beside->shrink, (real)beside->new_share,
                                 (real *)beside->average, (real *)beside->cleared};
}

/* The end of a step, for the n <= LANES numbers from index i on: stores `data` and the rest of struct beside. */
static ALWAYS_INLINE void finish(const struct beside_factors *how, int64_t i, int64_t n, vec cleared, vec data,
                                 real *values) {
  real *average = how->average ? how->average + i : NULL, *grad = how->cleared ? how->cleared + i : NULL;
  if (how->shrink != 0) data = vec_fma(vec_set1(-how->shrink), data, data);
  store_lanes(values + i, data, n);
  if (grad) store_lanes(grad, cleared, n);
  if (average) {
    vec old = load_lanes(average, n);
    store_lanes(average, vec_fma(vec_set1(how->new_share), vec_sub(data, old), old), n);
  }
}

struct sgd_factors {
  real lr, momentum;
  int nesterov;
  real decay;
};

static ALWAYS_INLINE vec sgd_lanes(const struct sgd_factors *how, vec g, vec *velocity, vec data) {
  if (velocity) {
    *velocity = vec_fma(vec_set1(how->momentum), *velocity, g);
    g = how->nesterov ? vec_fma(vec_set1(how->momentum), *velocity, g) : *velocity;
  }
  return vec_fma(vec_set1(-how->lr), g, data);
}

static ALWAYS_INLINE void sgd_vector(int64_t i, int64_t n, const struct sgd_factors *how,
                                     const struct beside_factors *beside, const real *grads, real *velocities,
                                     real *values) {
  vec data = load_lanes(values + i, n), g = decayed(load_lanes(grads + i, n), data, how->decay);
  vec velocity = velocities ? load_lanes(velocities + i, n) : vec_set1(0);
  g = vec_mul(vec_set1(beside->clip), g);
  vec stepped = sgd_lanes(how, g, velocities ? &velocity : NULL, data);
  if (velocities) store_lanes(velocities + i, velocity, n);
  finish(beside, i, n, vec_mul(g, vec_set1(0)), stepped, values);
}

static ALWAYS_INLINE void sgd_vectors(int64_t n, const struct sgd_factors *how, const struct beside_factors *beside,
                                      const real *grads, real *velocities, real *values) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sgd_vector(i, LANES, how, beside, grads, velocities, values);
  if (i < n) sgd_vector(i, n - i, how, beside, grads, velocities, values);
}

static void sgd(int64_t n, const struct sgd *step, const struct beside *besides, const void *grad, void *velocity,
                void *data) {
  const struct sgd_factors how = {(real)step->lr, (real)step->momentum, step->nesterov, (real)step->decay};
  if (besides) {
    const struct beside_factors beside = beside_in_real(besides);
    sgd_vectors(n, &how, &beside, grad, velocity, data);
  } else
    sgd_vectors(n, &how, &alone, grad, velocity, data);
}

struct adam_factors {
  real rate, old_mean, new_mean, old_square, new_square, unbias, eps, decay, keep;
};

/* factor * old, but 0 for a factor of 0, even if the old average is infinite */
static ALWAYS_INLINE vec kept_average(vec old, real factor) {
  return factor != 0 ? vec_mul(vec_set1(factor), old) : vec_set1(0);
}

/* An average is off by at most 3 roundings (u each) of beta |old| + (1 - beta) |new|: its two coefficients, a product
 * and a sum.  old + (1 - beta) (new - old) would be off by u |old|, and overflow where the two differ in sign. */
static ALWAYS_INLINE vec adam_lanes(const struct adam_factors *how, vec g, vec *mean, vec *square, vec data) {
  *mean = vec_fma(vec_set1(how->new_mean), g, kept_average(*mean, how->old_mean));
  *square = vec_fma(vec_mul(vec_set1(how->new_square), g), g, kept_average(*square, how->old_square));
  vec root = vec_fma(vec_sqrt(*square), vec_set1(how->unbias), vec_set1(how->eps));
  return vec_sub(vec_mul(vec_set1(how->keep), data), vec_div(vec_mul(vec_set1(how->rate), *mean), root));
}

static ALWAYS_INLINE void adam_vector(int64_t i, int64_t n, const struct adam_factors *how,
                                      const struct beside_factors *beside, const real *grads, real *means,
                                      real *squares, real *values) {
  vec data = load_lanes(values + i, n), g = decayed(load_lanes(grads + i, n), data, how->decay);
  vec mean = load_lanes(means + i, n), square = load_lanes(squares + i, n);
  vec stepped = adam_lanes(how, vec_mul(vec_set1(beside->clip), g), &mean, &square, data);
  store_lanes(means + i, mean, n);
  store_lanes(squares + i, square, n);
  finish(beside, i, n, vec_set1(0), stepped, values);
}

static ALWAYS_INLINE void adam_vectors(int64_t n, const struct adam_factors *how, const struct beside_factors *beside,
                                       const real *grads, real *means, real *squares, real *values) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) adam_vector(i, LANES, how, beside, grads, means, squares, values);
  if (i < n) adam_vector(i, n - i, how, beside, grads, means, squares, values);
}

static void adam(int64_t n, const struct adam *step, const struct beside *besides, const void *grad, void *mean,
                 void *square, void *data) {
  const struct adam_factors how = {
      .rate = (real)step->rate,
      .old_mean = (real)step->beta1,
      .new_mean = (real)(1 - step->beta1),
      .old_square = (real)step->beta2,
      .new_square = (real)(1 - step->beta2),
      .unbias = (real)step->unbias,
      .eps = (real)step->eps,
      .decay = (real)step->decay,
      .keep = (real)step->keep,
  };
  if (besides) {
    const struct beside_factors beside = beside_in_real(besides);
    adam_vectors(n, &how, &beside, grad, mean, square, data);
  } else
    adam_vectors(n, &how, &alone, grad, mean, square, data);
}

/* The sum of the squares of data [n], or with `scaled` of factor data. */
static ALWAYS_INLINE real sum_squares(int scaled, real factor, int64_t n, const real *data) {
  vec sums[4] = {vec_set1(0), vec_set1(0), vec_set1(0), vec_set1(0)}; /* four hide the latency of the FMA unit */
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int s = 0; s < 4; s++) {
      vec v = vec_load(data + i + s * LANES);
      if (scaled) v = vec_mul(v, vec_set1(factor));
      sums[s] = vec_fma(v, v, sums[s]);
    }
  for (; i < n; i += LANES) {
    vec v = n - i < LANES ? load_rest(data + i, n - i) : vec_load(data + i);
    if (scaled) v = vec_mul(v, vec_set1(factor));
    sums[0] = vec_fma(v, v, sums[0]);
  }
  return vec_sum(vec_add(vec_add(sums[0], sums[1]), vec_add(sums[2], sums[3])));
}

static void scale_by(int64_t n, real factor, real *data) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) vec_store(data + i, vec_mul(vec_load(data + i), vec_set1(factor)));
  for (; i < n; i++) data[i] *= factor;
}

/* The largest |data| of n, 0 for n = 0; the data has no NaN. */
static double max_abs(int64_t n, const void *data) {
  const real *values = data;
  double largest = 0;
  for (int64_t i = 0; i < n; i++) { /* no fmax(): GCC 12 for AArch64 crashes on this loop with it */
    const double magnitude = fabs((double)values[i]);
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

/* limit_norm for data without a NaN whose squares or scale overflow or underflow: the norm is that of data /
 * 2^exponent, whose largest number is about 1.  An infinite norm makes infinities NaN and the other numbers 0. */
static __attribute__((noinline, cold)) void limit_extreme_norm(int64_t n, real max_norm, real *data) {
  const int most = REAL_MAX_EXPONENT - 2;
  const double largest = max_abs(n, data);
  if (largest == 0) return;
  int exponent = 0;
  if (largest <= (double)REAL_MAX) frexp(largest, &exponent);
  exponent = exponent > most ? most : exponent < -most ? -most : exponent;
  real factor = (real)ldexp(1, -exponent), norm = (real)sqrt((double)sum_squares(1, factor, n, data));
  if (ldexp((double)norm, exponent) <= (double)max_norm) return;
  real quotient = max_norm / norm, scale = (real)ldexp((double)quotient, -exponent);
  if (scale < REAL_MIN) { /* a subnormal scale has fewer bits, so scale twice instead */
    scale_by(n, factor, data);
    scale = quotient;
  }
  scale_by(n, scale, data);
}

/* Scales a vector of n down to max_norm if its norm is larger.  If it has a NaN, all of it becomes NaN. */
static void limit_norm(int64_t n, double max_norm, void *data) {
  const real limit = (real)max_norm;
  real total = sum_squares(0, 1, n, data), norm = (real)sqrt((double)total), scale = 1;
  int extreme = total < REAL_MIN * (real)n || total > REAL_MAX;
  if (!extreme && norm <= limit) return;
  if (!extreme) scale = limit / norm;
  if (extreme || scale < REAL_MIN)
    limit_extreme_norm(n, limit, data);
  else
    scale_by(n, scale, data);
}

/* The sum of the squares of factor data [n], in double: a float32 has no square beyond the range of float64.  The sums
 * are as many as hide the latency of additions on the widest vectors. */
static double squared_norm(int64_t n, double factor, const void *data) {
  enum { SUMS = 32 };
  const real *values = data;
  double sums[SUMS] = {0};
  int64_t i = 0;
  for (; i + SUMS <= n; i += SUMS)
    for (int s = 0; s < SUMS; s++) {
      double v = factor * (double)values[i + s];
      sums[s] += v * v;
    }
  for (int s = 0; i < n; i++, s++) {
    double v = factor * (double)values[i];
    sums[s] += v * v;
  }
  for (int half = SUMS / 2; half > 0; half /= 2)
    for (int s = 0; s < half; s++) sums[s] += sums[s + half];
  return sums[0];
}

/* data [n] *= factor; each product is rounded once. */
static void shrink(int64_t n, double factor, void *data) {
  real *values = data;
  for (int64_t i = 0; i < n; i++) values[i] = (real)(factor * (double)values[i]);
}

#endif
