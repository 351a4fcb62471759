/* Bare maxout: the lowest index of a tie wins, and the first NaN, as in a tile's finish. */

static ALWAYS_INLINE void maxout_one(int64_t pieces, int64_t piece_step, const real *z, real *y, uint8_t *argmax) {
  real best = z[0];
  int64_t index = 0;
  for (int64_t k = 1; k < pieces; k++) {
    real other = z[k * piece_step];
    if (best == best && !(other <= best)) {
      best = other;
      index = k;
    }
  }
  *y = best;
  if (argmax) *argmax = (uint8_t)index;
}

/* y[i], argmax[i] from z[i step + k piece_step], k < pieces, for i < n.  One of the two steps is 1. */
static ALWAYS_INLINE void maxout_steps(int64_t pieces, int64_t step, int64_t piece_step, int64_t n, const real *z,
                                       real *y, uint8_t *argmax) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const real *first = z + i * step;
    vec best = step == 1 ? vec_load(first) : vec_load_strided(first, step), index = vec_set1(0);
    for (int64_t k = 1; k < pieces; k++) {
      const real *piece = first + k * piece_step;
      take_larger(step == 1 ? vec_load(piece) : vec_load_strided(piece, step), vec_set1((real)k), &best, &index);
    }
    vec_store(y + i, best);
    if (argmax) vec_store_bytes(argmax + i, index);
  }
  for (; i < n; i++) maxout_one(pieces, piece_step, z + i * step, y + i, argmax ? argmax + i : NULL);
}

/* z (n, pieces) */
static void maxout_rows(int64_t pieces, int64_t n, const real *z, real *y, uint8_t *argmax) {
  switch (pieces) { /* with the step known, the addresses of a row are */
  case 2: maxout_steps(2, 2, 1, n, z, y, argmax); break;
  case 3: maxout_steps(3, 3, 1, n, z, y, argmax); break;
  case 4: maxout_steps(4, 4, 1, n, z, y, argmax); break;
  default: maxout_steps(pieces, pieces, 1, n, z, y, argmax); break;
  }
}

/* z (outer, pieces, inner), inner < LANES: brought together to (pieces, some of the outer * inner) first, a vector at a
 * time, of which what is too much is written over by the next. */
static void maxout_narrow(int64_t outer, int64_t pieces, int64_t inner, const real *z, real *y, uint8_t *argmax) {
  real together[(MAX_PIECES + 1) * LANES];
  const int64_t most = MAX_PIECES * LANES / (pieces * inner);
  for (int64_t o = 0; o < outer; o += most) {
    const int64_t count = outer - o < most ? outer - o : most, width = count * inner;
    for (int64_t k = 0; k < pieces; k++)
      for (int64_t i = 0; i < count; i++)
        vec_store(together + k * width + i * inner, vec_load_first(z + ((o + i) * pieces + k) * inner, inner));
    maxout_steps(pieces, 1, width, width, together, y + o * inner, argmax ? argmax + o * inner : NULL);
  }
}

/* n columns of z (pieces, inner) */
static void maxout_columns(int64_t pieces, int64_t inner, int64_t n, const real *z, real *y, uint8_t *argmax) {
  maxout_steps(pieces, 1, inner, n, z, y, argmax);
}
