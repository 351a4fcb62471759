/* The finish of a tile: bias, maximum and index, and the only writes of results. */

static ALWAYS_INLINE void store_columns(real *y, vec a, int64_t columns) {
  if (columns >= LANES)
    vec_store(y, a);
  else if (columns > 0)
    vec_store_first(y, a, columns);
}

static ALWAYS_INLINE void store_bytes(uint8_t *p, vec a, int64_t columns) {
  if (columns >= LANES)
    vec_store_bytes(p, a);
  else
    vec_store_bytes_first(p, a, columns);
}

/* y = sums + bias, the vectors side by side.  What *f holds is read before the loops: the compiler can't know that a
 * store to y leaves it as it is.  An outer product of (1024, 1024) that is added to y took 249 us, and takes 194. */
static void finish_linear(const struct REAL(finish) * f) {
  const real *sums = f->sums, *bias = f->bias;
  real *y = f->y;
  const int64_t columns = f->columns, sums_stride = f->sums_stride, y_stride = f->y_stride;
  const int vectors = f->vectors, accumulate = f->accumulate;
  for (int64_t r = f->rows; r > 0; r--, sums += sums_stride, y += y_stride) {
    for (int v = 0; v < vectors; v++) {
      const int64_t rest = columns - v * LANES;
      vec sum = vec_add(vec_load(sums + v * LANES), vec_load(bias + v * LANES));
      if (accumulate) sum = vec_add(rest >= LANES ? vec_load(y + v * LANES) : vec_load_first(y + v * LANES, rest), sum);
      store_columns(y + v * LANES, sum, rest);
    }
  }
}

/* the larger of best and z, and which it is: the lowest index of a tie wins, and the first NaN */
static ALWAYS_INLINE void take_larger(vec z, vec k, vec *best, vec *index) {
  mask stays = mask_or(mask_le(z, *best), mask_nan(*best));
  *best = vec_select(stays, *best, z);
  *index = vec_select(stays, *index, k);
}

/* The largest of the vectors, lane by lane, or a NaN of them.  (128, 256, 96, 16) frozen took 419 us with the index,
 * and takes 411 without (Zen 5, AVX-512). */
static void finish_largest(const struct REAL(finish) * f) {
  for (int64_t r = 0; r < f->rows; r++) {
    const real *sums = f->sums + r * f->sums_stride;
    vec best = vec_add(vec_load(sums), vec_load(f->bias));
    for (int k = 1; k < f->vectors; k++) {
      vec z = vec_add(vec_load(sums + k * LANES), vec_load(f->bias + k * LANES));
      best = vec_select(mask_nan(z), z, vec_max(z, best)); /* of the two best where either is NaN */
    }
    store_columns(f->y + r * f->y_stride, best, f->columns);
  }
}

/* The same, and its index. */
static void finish_maxout(const struct REAL(finish) * f) {
  if (!f->argmax) {
    finish_largest(f);
    return;
  }
  for (int64_t r = 0; r < f->rows; r++) {
    const real *sums = f->sums + r * f->sums_stride;
    vec best = vec_add(vec_load(sums), vec_load(f->bias)), index = vec_set1(0), piece = vec_set1(0);
    for (int k = 1; k < f->vectors; k++) {
      piece = vec_add(piece, vec_set1(1));
      take_larger(vec_add(vec_load(sums + k * LANES), vec_load(f->bias + k * LANES)), piece, &best, &index);
    }
    store_columns(f->y + r * f->y_stride, best, f->columns);
    store_bytes(f->argmax + r * f->y_stride, index, f->columns);
  }
}
