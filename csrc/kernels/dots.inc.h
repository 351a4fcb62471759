/* Products straight from the rows' and the units' own layout, the depth in the lanes: nothing is packed, and no lane is
 * wasted where there are few rows or few outputs. */

/* The register tile: DOT_ROWS x DOT_UNITS sums of a vector each. */
#define DOT_ROWS 4
#define DOT_UNITS 4

/* sums (units, rows) = w (units, depth) . x (rows, depth), in runs of depth so long that each lane sums at most
 * DEPTH_CUT terms */
static ALWAYS_INLINE void dot_tile(int rows, int units, const struct REAL(dots) * t, const real *x, const real *w,
                                   real *sums) {
  for (int64_t start = 0; start == 0 || start < t->depth; start += DEPTH_CUT * LANES) {
    int64_t end = start + DEPTH_CUT * LANES < t->depth ? start + DEPTH_CUT * LANES : t->depth, d = start;
    vec acc[DOT_ROWS * DOT_UNITS], b[DOT_UNITS];
    UNROLL
    for (int i = 0; i < rows * units; i++) acc[i] = vec_set1(0);
    for (; d + LANES <= end; d += LANES) {
      UNROLL
      for (int u = 0; u < units; u++) b[u] = vec_load(w + u * t->w_stride + d);
      UNROLL
      for (int n = 0; n < rows; n++) {
        vec a = vec_load(x + n * t->x_stride + d);
        UNROLL
        for (int u = 0; u < units; u++) acc[u * rows + n] = vec_fma(a, b[u], acc[u * rows + n]);
      }
    }
    if (d < end) {
      UNROLL
      for (int u = 0; u < units; u++) b[u] = vec_load_first(w + u * t->w_stride + d, end - d);
      UNROLL
      for (int n = 0; n < rows; n++) {
        vec a = vec_load_first(x + n * t->x_stride + d, end - d);
        UNROLL
        for (int u = 0; u < units; u++) acc[u * rows + n] = vec_fma(a, b[u], acc[u * rows + n]);
      }
    }
    UNROLL
    for (int i = 0; i < rows * units; i++) {
      real *sum = sums + i / rows * t->sums_stride + i % rows;
      *sum = vec_sum(acc[i]) + (start ? *sum : 0);
    }
  }
}

/* All the units for `rows` rows, rows constant */
static ALWAYS_INLINE void dot_rows(int rows, const struct REAL(dots) * t, const real *x, real *sums) {
  const real *w = t->w;
  int64_t left = t->units;
  for (; left >= DOT_UNITS; left -= DOT_UNITS, w += DOT_UNITS * t->w_stride, sums += DOT_UNITS * t->sums_stride)
    dot_tile(rows, DOT_UNITS, t, x, w, sums);
  switch (left) {
  case 3: dot_tile(rows, 3, t, x, w, sums); break;
  case 2: dot_tile(rows, 2, t, x, w, sums); break;
  case 1: dot_tile(rows, 1, t, x, w, sums); break;
  }
}

static void dots(const struct REAL(dots) * t) {
  const real *x = t->x;
  real *sums = t->sums;
  int64_t left = t->rows;
  for (; left >= DOT_ROWS; left -= DOT_ROWS, x += DOT_ROWS * t->x_stride, sums += DOT_ROWS)
    dot_rows(DOT_ROWS, t, x, sums);
  switch (left) {
  case 3: dot_rows(3, t, x, sums); break;
  case 2: dot_rows(2, t, x, sums); break;
  case 1: dot_rows(1, t, x, sums); break;
  }
}
