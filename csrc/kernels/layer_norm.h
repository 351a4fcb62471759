/* Layer norm of contiguous rows of n >= 1 elements, and its gradients (Ba, Kiros & Hinton 2016).
 *
 * The mean of a row comes from x - x[0], so that a row of equal numbers has deviations of exactly 0.  Rounded to the
 * elements' type, the mean is off by up to u |mean|, which may be much beside the deviations of a row far from 0.  So
 * the mean of x - mean, the correction, is subtracted too: the corrected two-pass algorithm (Chan, Golub & LeVeque
 * 1983).  A deviation is then off by at most gamma (2 |x - mean| + s + 3 h), where s is the standard deviation of the
 * row, gamma stands for the roundings of a sum (tests/support/tolerance.py), and h = 2 u |mean| + gamma (s + |x[0] -
 * mean|) is the error of the mean. */
#ifndef FA_LAYER_NORM_H
#define FA_LAYER_NORM_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* Elements whose terms are added in the elements' type, at most 256 to a lane.  The sums of blocks are added in double.
 */
#define NORM_BLOCK 1024

static ALWAYS_INLINE vec load_at_most(const real *p, int64_t n) {
  return n < LANES ? vec_load_first(p, n) : vec_load(p);
}

static ALWAYS_INLINE void store_at_most(real *p, vec a, int64_t n) {
  if (n < LANES)
    vec_store_first(p, a, n);
  else
    vec_store(p, a);
}

/* 1 in the first n % LANES lanes, which the last vector of a row of n fills, and 0 in the others */
static ALWAYS_INLINE vec lanes_inside(int64_t n) {
  real ones[LANES];
  vec_store(ones, vec_set1(1));
  return vec_load_first(ones, n % LANES);
}

/* Sums over a row of d = x - from and of d^2, in lanes and as numbers. */
struct deviation_lanes {
  vec d, squares;
};
struct deviation_sums {
  double d, squares;
};

static ALWAYS_INLINE void add_deviation(struct deviation_lanes *to, vec d) {
  to->d = vec_add(to->d, d);
  to->squares = vec_fma(d, d, to->squares);
}

static ALWAYS_INLINE struct deviation_sums sum_deviations(int64_t n, vec inside, const real *x, real from) {
  const vec start = vec_set1(from), zero = vec_set1(0);
  struct deviation_sums total = {0, 0};
  for (int64_t i = 0; i < n;) {
    const int64_t end = n - i < NORM_BLOCK ? n : i + NORM_BLOCK;
    struct deviation_lanes lanes[4] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}}; /* hide the latency */
    for (; i + 4 * LANES <= end; i += 4 * LANES) {
      UNROLL
      for (int k = 0; k < 4; k++) add_deviation(&lanes[k], vec_sub(vec_load(x + i + k * LANES), start));
    }
    for (; i + LANES <= end; i += LANES) add_deviation(&lanes[0], vec_sub(vec_load(x + i), start));
    if (i < end) add_deviation(&lanes[0], vec_sub(vec_load_first(x + i, end - i), vec_mul(start, inside)));
    i = end;
    total.d += (double)vec_sum(vec_add(vec_add(lanes[0].d, lanes[1].d), vec_add(lanes[2].d, lanes[3].d)));
    total.squares += (double)vec_sum(
        vec_add(vec_add(lanes[0].squares, lanes[1].squares), vec_add(lanes[2].squares, lanes[3].squares)));
  }
  return total;
}

/* y = (x - mean) / sqrt(variance + eps) weight + bias of `rows` rows, and saved (rows, 2): mean, 1 / sqrt(variance +
 * eps).  weight, bias and saved may be NULL, y may be x.  A row with an infinity or a NaN becomes NaN. */
static void layer_norm(int64_t rows, int64_t n, double eps, const void *x, const void *weight, const void *bias,
                       void *y, void *saved) {
  const real *row = x, *weights = weight, *biases = bias;
  real *to = y, *kept = saved;
  const vec inside = lanes_inside(n);
  for (; rows > 0; rows--, row += n, to += n) {
    const real mean = (real)((double)row[0] + sum_deviations(n, inside, row, row[0]).d / (double)n);
    const struct deviation_sums sums = sum_deviations(n, inside, row, mean);
    const double correction = sums.d / (double)n;
    double variance = sums.squares / (double)n - correction * correction;
    if (variance < 0) variance = 0; /* by rounding; a NaN stays */
    const real scale = (real)(1 / sqrt(variance + eps));
    if (kept) {
      *kept++ = (real)((double)mean + correction);
      *kept++ = scale;
    }
    const vec middle = vec_set1(mean), rest = vec_set1((real)correction), factor = vec_set1(scale);
    for (int64_t i = 0; i < n; i += LANES) {
      vec value = vec_mul(vec_sub(vec_sub(load_at_most(row + i, n - i), middle), rest), factor);
      if (weights) value = vec_mul(value, load_at_most(weights + i, n - i));
      if (biases) value = vec_add(value, load_at_most(biases + i, n - i));
      store_at_most(to + i, value, n - i);
    }
  }
}

/* Sums over a row of d = x - mean, of g = grad_y weight and of g d, in lanes and as numbers. */
struct norm_lanes {
  vec d, g, products;
};
struct norm_sums {
  double d, g, products;
};

/* grad_y weight, and 0 in the lanes from n on */
static ALWAYS_INLINE vec weighted(const real *grad_y, const real *weight, int64_t i, int64_t n) {
  const vec grad = load_at_most(grad_y + i, n);
  return weight ? vec_mul(grad, load_at_most(weight + i, n)) : grad;
}

static ALWAYS_INLINE void add_gradient(struct norm_lanes *to, vec d, vec g) {
  to->d = vec_add(to->d, d);
  to->g = vec_add(to->g, g);
  to->products = vec_fma(g, d, to->products);
}

static ALWAYS_INLINE struct norm_sums sum_gradients(int64_t n, vec inside, const real *x, real mean, const real *grad_y,
                                                    const real *weight) {
  const vec middle = vec_set1(mean), zero = vec_set1(0);
  struct norm_sums total = {0, 0, 0};
  for (int64_t i = 0; i < n;) {
    const int64_t end = n - i < NORM_BLOCK ? n : i + NORM_BLOCK;
    struct norm_lanes lanes[2] = {{zero, zero, zero}, {zero, zero, zero}};
    for (; i + 2 * LANES <= end; i += 2 * LANES) {
      UNROLL
      for (int k = 0; k < 2; k++) {
        const int64_t at = i + k * LANES;
        add_gradient(&lanes[k], vec_sub(vec_load(x + at), middle), weighted(grad_y, weight, at, LANES));
      }
    }
    for (; i + LANES <= end; i += LANES)
      add_gradient(&lanes[0], vec_sub(vec_load(x + i), middle), weighted(grad_y, weight, i, LANES));
    if (i < end) {
      vec d = vec_sub(vec_load_first(x + i, end - i), vec_mul(middle, inside));
      add_gradient(&lanes[0], d, weighted(grad_y, weight, i, end - i));
    }
    i = end;
    total.d += (double)vec_sum(vec_add(lanes[0].d, lanes[1].d));
    total.g += (double)vec_sum(vec_add(lanes[0].g, lanes[1].g));
    total.products += (double)vec_sum(vec_add(lanes[0].products, lanes[1].products));
  }
  return total;
}

static void layer_norm_backward(const struct norm_backward *b) {
  const int64_t n = b->features;
  const real *x = b->x, *grad_y = b->grad_y, *weight = b->weight, *saved = b->saved;
  real *grad_x = b->grad_x, *weight_sums = b->weight_sums, *bias_sums = b->bias_sums;
  const vec inside = lanes_inside(n);
  for (int64_t row = 0; row < b->rows; row++, x += n, grad_y += n, saved += 2) {
    const struct norm_sums sums = sum_gradients(n, inside, x, saved[0], grad_y, weight);
    const double correction = sums.d / (double)n, g_mean = sums.g / (double)n;
    const double slope = (double)saved[1] * (sums.products / (double)n - correction * g_mean); /* mean of g normal */
    const vec middle = vec_set1(saved[0]), rest = vec_set1((real)correction), factor = vec_set1(saved[1]);
    const vec shift = vec_set1((real)g_mean), tilt = vec_set1((real)slope);
    for (int64_t i = 0; i < n; i += LANES) {
      const vec grad = load_at_most(grad_y + i, n - i), g = weighted(grad_y, weight, i, n - i);
      const vec normal = vec_mul(vec_sub(vec_sub(load_at_most(x + i, n - i), middle), rest), factor);
      if (weight_sums)
        store_at_most(weight_sums + i, vec_fma(grad, normal, load_at_most(weight_sums + i, n - i)), n - i);
      if (bias_sums) store_at_most(bias_sums + i, vec_add(grad, load_at_most(bias_sums + i, n - i)), n - i);
      if (grad_x) store_at_most(grad_x + i, vec_mul(factor, vec_sub(vec_sub(g, shift), vec_mul(normal, tilt))), n - i);
    }
    if (grad_x) grad_x += n;
  }
}

#endif
