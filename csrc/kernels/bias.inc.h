/* The gradient of a maxout layer's bias: sums over rows, for each piece of each output of the gradients that it won. */

#if LANES >= 8 /* with fewer the winners are added one by one as quickly */

/* Columns side by side, so that a row is read a few cache lines at a time. */
#define BIAS_VECTORS (VECTOR_REGISTERS / 8)
#define BIAS_PIECES 4

/* sums(j, k), j < vectors * LANES, k < count, rows of sums `pieces` apart: the sums over the rows of grad(r, j) where
 * argmax(r, j) = piece + k */
static ALWAYS_INLINE void sum_pieces(int vectors, int count, uint8_t piece, const struct REAL(bias_run) * b,
                                     int64_t column, real *sums) {
  const int64_t stride = b->stride;
  const real *grad = b->grad_y + column;
  const uint8_t *argmax = b->argmax + column;
  vec acc[BIAS_PIECES * BIAS_VECTORS];
  UNROLL
  for (int i = 0; i < count * vectors; i++) acc[i] = vec_set1(0);
  for (int64_t r = b->rows; r > 0; r--, grad += stride, argmax += stride) {
    UNROLL
    for (int v = 0; v < vectors; v++) {
      vec g = vec_load(grad + v * LANES);
      UNROLL
      for (int k = 0; k < count; k++) {
        mask won = mask_bytes(argmax + v * LANES, (uint8_t)(piece + k));
        acc[k * vectors + v] = vec_add(acc[k * vectors + v], vec_select(won, g, vec_set1(0)));
      }
    }
  }
  UNROLL
  for (int k = 0; k < count; k++) {
    real lanes[BIAS_VECTORS * LANES];
    UNROLL
    for (int v = 0; v < vectors; v++) vec_store(lanes + v * LANES, acc[k * vectors + v]);
    for (int j = 0; j < vectors * LANES; j++) sums[j * b->pieces + k] = lanes[j];
  }
}

static ALWAYS_INLINE void sum_strip(int vectors, const struct REAL(bias_run) * b, int64_t column) {
  for (int64_t k = 0; k < b->pieces; k += BIAS_PIECES) {
    real *sums = b->sums + column * b->pieces + k;
    switch (b->pieces - k) {
    case 1: sum_pieces(vectors, 1, (uint8_t)k, b, column, sums); break;
    case 2: sum_pieces(vectors, 2, (uint8_t)k, b, column, sums); break;
    case 3: sum_pieces(vectors, 3, (uint8_t)k, b, column, sums); break;
    default: sum_pieces(vectors, BIAS_PIECES, (uint8_t)k, b, column, sums); break;
    }
  }
}

#endif

/* In lanes every piece takes its turn, so many pieces are added one by one, as the last columns are: (1024, 96, 12
 * pieces) takes 26 us in lanes and 40 one by one, 3 pieces 12 and 40 (Zen 5, AVX-512). */
static void sum_bias(const struct REAL(bias_run) * b) {
  int64_t j = 0;
#if LANES >= 8
  if (b->pieces <= LANES) {
    for (; j + BIAS_VECTORS * LANES <= b->columns; j += BIAS_VECTORS * LANES) sum_strip(BIAS_VECTORS, b, j);
    for (; j + LANES <= b->columns; j += LANES) sum_strip(1, b, j);
  }
#endif
  const int64_t columns = b->columns - j, pieces = b->pieces, stride = b->stride;
  const real *grad = b->grad_y + j;
  const uint8_t *argmax = b->argmax + j;
  real *sums = b->sums + j * pieces;
  memset(sums, 0, (size_t)(columns * pieces) * sizeof(real));
  for (int64_t r = b->rows; r > 0; r--, grad += stride, argmax += stride)
    for (int64_t i = 0; i < columns; i++) sums[i * pieces + winner_at(argmax + i, pieces)] += grad[i];
}
