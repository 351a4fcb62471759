/* A few rows: the products straight from the weights' own layout, the depth in the lanes, nothing packed.  Each
 * weight is read once, at memory speed. */

/* sums[n] = x(n, :) . w for n < rows, in runs of depth so long that each lane sums at most DEPTH_CUT terms */
static ALWAYS_INLINE void dot_rows(int rows, int64_t depth, const real *x, int64_t x_stride, const real *w,
                                   real *sums) {
  enum { CHAINS = 2 };
  vec acc[MAX_DOT_ROWS * CHAINS];
  UNROLL
  for (int n = 0; n < rows; n++) sums[n] = 0;
  for (int64_t start = 0; start < depth; start += DEPTH_CUT * CHAINS * LANES) {
    int64_t end = start + DEPTH_CUT * CHAINS * LANES < depth ? start + DEPTH_CUT * CHAINS * LANES : depth;
    int64_t d = start;
    UNROLL
    for (int i = 0; i < rows * CHAINS; i++) acc[i] = vec_set1(0);
    for (; d + CHAINS * LANES <= end; d += CHAINS * LANES) {
      UNROLL
      for (int c = 0; c < CHAINS; c++) {
        vec b = vec_load(w + d + c * LANES);
        UNROLL
        for (int n = 0; n < rows; n++)
          acc[n * CHAINS + c] = vec_fma(vec_load(x + n * x_stride + d + c * LANES), b, acc[n * CHAINS + c]);
      }
    }
    UNROLL
    for (int n = 0; n < rows; n++) {
      real tail = 0;
      for (int64_t i = d; i < end; i++) tail += x[n * x_stride + i] * w[i];
      vec sum = acc[n * CHAINS];
      UNROLL
      for (int c = 1; c < CHAINS; c++) sum = vec_add(sum, acc[n * CHAINS + c]);
      sums[n] += vec_sum(sum) + tail;
    }
  }
}

/* x (rows, depth), w (units, depth) -> sums [units][rows], rows from 1 to MAX_DOT_ROWS */
static void dots(int64_t rows, int64_t units, int64_t depth, const real *x, const real *w, real *sums) {
  for (int64_t u = 0; u < units; u++, w += depth, sums += rows) {
    switch (rows) {
    case 1: dot_rows(1, depth, x, depth, w, sums); break;
    case 2: dot_rows(2, depth, x, depth, w, sums); break;
    case 3: dot_rows(3, depth, x, depth, w, sums); break;
    default: dot_rows(4, depth, x, depth, w, sums); break;
    }
  }
}
