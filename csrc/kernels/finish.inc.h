/* The two ways to finish a tile of sums, acc [rows][vectors].  A maxout tile holds the pieces of LANES neighbouring
 * outputs, one piece a vector, so that a group meets in registers. */

/* Adds the sums of the runs of depth before this one.  Returns whether more runs follow: the sums are
 * then in t->partial. */
static ALWAYS_INLINE int add_partial(int rows, int vectors, vec *acc, const struct REAL(tile) * t) {
  if (!t->first_run) {
    UNROLL
    for (int i = 0; i < rows * vectors; i++) acc[i] = vec_add(vec_load(t->partial + i * LANES), acc[i]);
  }
  if (t->last_run) return 0;
  UNROLL
  for (int i = 0; i < rows * vectors; i++) vec_store(t->partial + i * LANES, acc[i]);
  return 1;
}

static ALWAYS_INLINE void store_columns(real *y, vec a, int64_t columns) {
  if (columns >= LANES) {
    vec_store(y, a);
  } else if (columns > 0) {
    real lanes[LANES];
    vec_store(lanes, a);
    memcpy(y, lanes, (size_t)columns * sizeof(real));
  }
}

static ALWAYS_INLINE void store_bytes(uint8_t *p, vec a, int64_t columns) {
  if (columns >= LANES) {
    vec_store_bytes(p, a);
  } else {
    uint8_t lanes[LANES];
    vec_store_bytes(lanes, a);
    memcpy(p, lanes, (size_t)columns);
  }
}

/* y = sums + bias, the vectors side by side */
static ALWAYS_INLINE void finish_linear(int rows, int vectors, vec *acc, const struct REAL(tile) * t) {
  if (add_partial(rows, vectors, acc, t)) return;
  UNROLL
  for (int r = 0; r < rows; r++) {
    if (r >= t->rows) break;
    UNROLL
    for (int v = 0; v < vectors; v++) {
      real *y = t->y + r * t->y_stride + v * LANES;
      int64_t columns = t->columns - v * LANES;
      vec sum = vec_add(acc[r * vectors + v], vec_load(t->bias + v * LANES));
      if (t->accumulate) {
        real old[LANES] = {0};
        if (columns > 0) memcpy(old, y, (size_t)(columns < LANES ? columns : LANES) * sizeof(real));
        sum = vec_add(vec_load(old), sum);
      }
      store_columns(y, sum, columns);
    }
  }
}

/* The largest of the vectors, lane by lane, and its index.  The lowest index of a tie wins, and the first NaN. */
static ALWAYS_INLINE void finish_maxout(int rows, int pieces, vec *acc, const struct REAL(tile) * t) {
  if (add_partial(rows, pieces, acc, t)) return;
  UNROLL
  for (int r = 0; r < rows; r++) {
    if (r >= t->rows) break;
    vec best, index;
    UNROLL
    for (int k = 0; k < pieces; k++) {
      vec z = vec_add(acc[r * pieces + k], vec_load(t->bias + k * LANES));
      vec piece = vec_set1((real)(t->piece + k));
      if (k == 0) {
        if (t->piece == 0) {
          best = z;
          index = vec_set1(0);
          continue;
        }
        best = vec_load(t->best + r * LANES);
        index = vec_load(t->index + r * LANES);
      }
      mask wins = mask_andnot(mask_or(mask_gt(z, best), mask_nan(z)), mask_nan(best));
      best = vec_select(wins, z, best);
      index = vec_select(wins, piece, index);
    }
    if (!t->last_group) {
      vec_store(t->best + r * LANES, best);
      vec_store(t->index + r * LANES, index);
      continue;
    }
    store_columns(t->y + r * t->y_stride, best, t->columns);
    if (t->argmax) store_bytes(t->argmax + r * t->y_stride, index, t->columns);
  }
}
