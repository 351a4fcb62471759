/* Losses over arrays: each number is read once. */

/* grad = scale (y - target); returns the sum of the squares of y - target */
static real mse(int64_t n, real scale, const real *y, const real *target, real *grad) {
  vec sums[4] = {vec_set1(0), vec_set1(0), vec_set1(0), vec_set1(0)}; /* one would wait for itself */
  const vec factor = vec_set1(scale);
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int s = 0; s < 4; s++) {
      vec off = vec_sub(vec_load(y + i + s * LANES), vec_load(target + i + s * LANES));
      sums[s] = vec_fma(off, off, sums[s]);
      vec_store(grad + i + s * LANES, vec_mul(factor, off));
    }
  for (; i < n; i += LANES) {
    int64_t count = n - i < LANES ? n - i : LANES;
    vec off = vec_sub(load_rest(y + i, count), load_rest(target + i, count));
    sums[0] = vec_fma(off, off, sums[0]);
    store_rest(grad + i, vec_mul(factor, off), count);
  }
  return vec_sum(vec_add(vec_add(sums[0], sums[1]), vec_add(sums[2], sums[3])));
}
