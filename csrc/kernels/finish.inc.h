/* The finish of a tile: bias, maximum and index, and the only writes of results. */

static ALWAYS_INLINE void store_columns(real *y, vec a, int64_t columns) {
  if (columns >= LANES)
    vec_store(y, a);
  else
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

/* A piece's sums and bias, `spread`: one number of it for all lanes */
static ALWAYS_INLINE vec biased(const real *sums, const real *bias, int spread) {
  return vec_add(vec_load(sums), spread ? vec_set1(*bias) : vec_load(bias));
}

/* The largest of the pieces, lane by lane, and which it is.  At first as if there were no NaN, so that a maximum waits
 * for the one before it alone: a block of finish_units with 3 pieces took 327 cycles, and takes 216 (Zen 5, AVX-512).
 * The sum of all tells of a NaN. */
static ALWAYS_INLINE vec take_largest(int64_t pieces, const real *sums, int64_t sums_step, const real *bias,
                                      int64_t bias_step, int spread, vec *index) {
  const vec first = biased(sums, bias, spread), zero = vec_set1(0), one = vec_set1(1);
  vec best = first, all = first, piece = zero;
  *index = zero;
  for (int64_t k = 1; k < pieces; k++) {
    vec z = biased(sums + k * sums_step, bias + k * bias_step, spread);
    piece = vec_add(piece, one);
    *index = vec_select(mask_gt(z, best), piece, *index);
    best = vec_max(z, best);
    all = vec_add(all, z);
  }
  if (__builtin_expect(!mask_any(mask_nan(all)), 1)) return best;
  best = first, *index = piece = zero;
  for (int64_t k = 1; k < pieces; k++) {
    piece = vec_add(piece, one);
    take_larger(biased(sums + k * sums_step, bias + k * bias_step, spread), piece, &best, index);
  }
  return best;
}

static ALWAYS_INLINE void finish_pieces(const struct REAL(finish) * f, int indexed) {
  for (int64_t r = 0; r < f->rows; r++) {
    vec index, best = take_largest(f->vectors, f->sums + r * f->sums_stride, LANES, f->bias, LANES, 0, &index);
    store_columns(f->y + r * f->y_stride, best, f->columns);
    if (indexed) store_bytes(f->argmax + r * f->y_stride, index, f->columns);
  }
}

static void finish_maxout(const struct REAL(finish) * f) {
  if (f->argmax)
    finish_pieces(f, 1);
  else
    finish_pieces(f, 0);
}
