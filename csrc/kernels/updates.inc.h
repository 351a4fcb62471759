/* Steps of an optimiser over arrays: each number is read once, written once. */

/* grad + decay data */
static ALWAYS_INLINE vec decayed(vec grad, vec data, real decay) {
  return decay != 0 ? vec_fma(vec_set1(decay), data, grad) : grad; /* infinite data may be 0 times */
}

static ALWAYS_INLINE vec sgd_lanes(const struct REAL(sgd) * how, vec g, vec *velocity, vec data) {
  g = decayed(g, data, how->decay);
  if (velocity) {
    *velocity = vec_fma(vec_set1(how->momentum), *velocity, g);
    g = how->nesterov ? vec_fma(vec_set1(how->momentum), *velocity, g) : *velocity;
  }
  return vec_fma(vec_set1(-how->lr), g, data);
}

static void sgd(int64_t n, const struct REAL(sgd) * how, const real *grad, real *velocity, real *data) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec v = velocity ? vec_load(velocity + i) : vec_set1(0);
    vec_store(data + i, sgd_lanes(how, vec_load(grad + i), velocity ? &v : NULL, vec_load(data + i)));
    if (velocity) vec_store(velocity + i, v);
  }
  if (i < n) {
    vec v = velocity ? load_rest(velocity + i, n - i) : vec_set1(0);
    vec stepped = sgd_lanes(how, load_rest(grad + i, n - i), velocity ? &v : NULL, load_rest(data + i, n - i));
    store_rest(data + i, stepped, n - i);
    if (velocity) store_rest(velocity + i, v, n - i);
  }
}

/* factor old, 0 for a factor of 0: infinite averages are forgotten too */
static ALWAYS_INLINE vec kept_average(vec old, real factor) {
  return factor != 0 ? vec_mul(vec_set1(factor), old) : vec_set1(0);
}

/* An average is off by at most 3 roundings (u each) of beta |old| + (1 - beta) |new|: its two coefficients, a product
 * and a sum.  old + (1 - beta) (new - old) would be off by u |old|, and overflow where the two differ in sign. */
static ALWAYS_INLINE vec adam_lanes(const struct REAL(adam) * how, vec g, vec *mean, vec *square, vec data) {
  g = decayed(g, data, how->decay);
  *mean = vec_fma(vec_set1(how->new_mean), g, kept_average(*mean, how->old_mean));
  *square = vec_fma(vec_mul(vec_set1(how->new_square), g), g, kept_average(*square, how->old_square));
  vec root = vec_fma(vec_sqrt(*square), vec_set1(how->unbias), vec_set1(how->eps));
  return vec_sub(data, vec_div(vec_mul(vec_set1(how->rate), *mean), root));
}

static void adam(int64_t n, const struct REAL(adam) * how, const real *grad, real *mean, real *square, real *data) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec m = vec_load(mean + i), s = vec_load(square + i);
    vec_store(data + i, adam_lanes(how, vec_load(grad + i), &m, &s, vec_load(data + i)));
    vec_store(mean + i, m);
    vec_store(square + i, s);
  }
  if (i < n) {
    vec m = load_rest(mean + i, n - i), s = load_rest(square + i, n - i);
    vec stepped = adam_lanes(how, load_rest(grad + i, n - i), &m, &s, load_rest(data + i, n - i));
    store_rest(data + i, stepped, n - i);
    store_rest(mean + i, m, n - i);
    store_rest(square + i, s, n - i);
  }
}

/* The sum of the squares of factor data [n], where `scaled`, else of data. */
static ALWAYS_INLINE real sum_squares(int scaled, real factor, int64_t n, const real *data) {
  vec sums[4] = {vec_set1(0), vec_set1(0), vec_set1(0), vec_set1(0)}; /* one would wait for itself */
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

#if REAL_BITS == 32
#define NORM_MIN FLT_MIN
#define NORM_MAX FLT_MAX
#define NORM_EXPONENT (FLT_MAX_EXP - 2)
#else
#define NORM_MIN DBL_MIN
#define NORM_MAX DBL_MAX
#define NORM_EXPONENT (DBL_MAX_EXP - 2)
#endif

/* limit_norm where squares or the scale overflow or underflow, without a NaN: the norm is that of data / 2^exponent,
 * whose largest number is about 1.  An infinite norm makes infinities NaN and the other numbers 0. */
static __attribute__((noinline, cold)) void limit_extreme_norm(int64_t n, real max_norm, real *data) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)data[i]));
  if (largest == 0) return;
  int exponent = 0;
  if (largest <= (double)NORM_MAX) frexp(largest, &exponent);
  exponent = exponent > NORM_EXPONENT ? NORM_EXPONENT : exponent < -NORM_EXPONENT ? -NORM_EXPONENT : exponent;
  real factor = (real)ldexp(1, -exponent), norm = (real)sqrt((double)sum_squares(1, factor, n, data));
  if (ldexp((double)norm, exponent) <= (double)max_norm) return;
  real quotient = max_norm / norm, scale = (real)ldexp((double)quotient, -exponent);
  if (scale < NORM_MIN) { /* a denormal number would not be exact */
    scale_by(n, factor, data);
    scale = quotient;
  }
  scale_by(n, scale, data);
}

/* Scales a vector of n down to max_norm where it is longer; one with a NaN becomes NaN. */
static void limit_norm(int64_t n, real max_norm, real *data) {
  real total = sum_squares(0, 1, n, data);
  real norm = (real)sqrt((double)total), scale = 1;
  int extreme = total < NORM_MIN * (real)n || total > NORM_MAX;
  if (!extreme && norm <= max_norm) return;
  if (!extreme) scale = max_norm / norm;
  if (extreme || scale < NORM_MIN)
    limit_extreme_norm(n, max_norm, data);
  else
    scale_by(n, scale, data);
}
