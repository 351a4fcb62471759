/* The micro-kernel: a register tile of `rows` x `vectors` sums.
 *
 * With constant rows and vectors the compiler keeps all the sums in registers.  The left operand is read where it
 * lies, one number for all lanes; the right one from a panel.  Every tile adds the terms of a sum in the same order, so
 * that a row has the same bits in a tile of any height. */

/* How far ahead the left operand's rows are fetched, in reals, and how many of them share a cache line.  Never beyond
 * the tile's depth: what lies there is for the next slice, and until then only takes the place of the present one in
 * L1. (1024, 1024, 1024, 2) took 18.8 ms with 64 and no limit, 18.7 with 64, 18.3 with 32 and 18.5 without fetching;
 * (1024, 288, 96, 3) 715, 704, 706 and 700 us (frozen, Zen 5, one thread). */
#define PREFETCH_AHEAD 32
#define LINE_REALS (64 / (int64_t)sizeof(real))

/* How many rows ahead the right operand is fetched by tiles so low that they wait for it: one frozen row of (1024,
 * 1024, 2) took 90 to 98 us without, 79 with 16 rows, 79 to 85 with 32 and 82 with 64, while the other core used the L3
 * cache too (74 to 76 either way while it did not). */
#define PREFETCH_ROWS_AHEAD 16
#define MAX_WAITING_ROWS 4

/* One step of depth.  left[i] points at row 3 i, so that 12 rows take 4 pointers and the stride. */
static ALWAYS_INLINE void multiply_step(int rows, int vectors, vec *acc, const real *const *left, int64_t stride,
                                        const real *right) {
  vec b[MAX_TILE_VECTORS];
  UNROLL
  for (int v = 0; v < vectors; v++) b[v] = vec_load(right + v * LANES);
  UNROLL
  for (int r = 0; r < rows; r++) {
    vec a = vec_set1(left[r / 3][r % 3 * stride]);
    UNROLL
    for (int v = 0; v < vectors; v++) vec_accumulate(&acc[r * vectors + v], a, b[v]);
  }
}

static ALWAYS_INLINE void multiply_tile(int rows, int vectors, const struct REAL(tile) * t) {
  vec acc[MAX_TILE_SUMS];
  const real *left[MAX_REGISTER_ROWS / 3], *right = t->right;
  int64_t rest = t->depth, stride = t->left_stride, right_stride = t->right_stride;
  int add = t->add;
  UNROLL
  for (int r = 0; r < rows; r += 3) left[r / 3] = t->left + r * stride;
  do {
    int64_t d = 0, depth = rest < t->run ? rest : t->run;
    UNROLL
    for (int i = 0; i < rows * vectors; i++) acc[i] = vec_set1(0);
    for (; d + 4 <= depth; d += 4) {
      if (d % LINE_REALS == 0 && d + PREFETCH_AHEAD < rest) {
        UNROLL
        for (int r = 0; r < rows; r++) __builtin_prefetch(left[r / 3] + r % 3 * stride + PREFETCH_AHEAD);
      }
      UNROLL
      for (int q = 0; q < 4; q++, right += right_stride) {
        multiply_step(rows, vectors, acc, left, stride, right);
        UNROLL
        for (int v = 0; v < vectors && rows <= MAX_WAITING_ROWS; v++)
          __builtin_prefetch(right + PREFETCH_ROWS_AHEAD * right_stride + v * LANES);
        UNROLL
        for (int r = 0; r < rows; r += 3) left[r / 3]++;
      }
    }
    for (; d < depth; d++, right += right_stride) {
      multiply_step(rows, vectors, acc, left, stride, right);
      UNROLL
      for (int r = 0; r < rows; r += 3) left[r / 3]++;
    }
    UNROLL
    for (int i = 0; i < rows * vectors; i++) {
      real *sum = t->sums + i / vectors * t->sums_stride + i % vectors * LANES;
      vec_store(sum, add ? vec_add(vec_load(sum), acc[i]) : acc[i]);
    }
    add = 1;
    rest -= t->run;
  } while (rest > 0);
}

#define TILE(rows, vectors)                                                                                            \
  static void multiply_##rows##x##vectors(const struct REAL(tile) * t) { multiply_tile(rows, vectors, t); }
#define TILE_NAME(rows, vectors) multiply_##rows##x##vectors,
/* X for each height from 1 */
#define HEIGHTS_3(X, vectors) X(1, vectors) X(2, vectors) X(3, vectors)
#define HEIGHTS_4(X, vectors) HEIGHTS_3(X, vectors) X(4, vectors)
#define HEIGHTS_5(X, vectors) HEIGHTS_4(X, vectors) X(5, vectors)
#define HEIGHTS_6(X, vectors) HEIGHTS_5(X, vectors) X(6, vectors)
#define HEIGHTS_8(X, vectors) HEIGHTS_6(X, vectors) X(7, vectors) X(8, vectors)
#define HEIGHTS_12(X, vectors) HEIGHTS_8(X, vectors) X(9, vectors) X(10, vectors) X(11, vectors) X(12, vectors)

/* The tallest tiles fill 32 or 16 registers: sums, the vectors of the right operand, and one number of the left. */
HEIGHTS_12(TILE, 1)
#if VECTOR_REGISTERS == 32
HEIGHTS_12(TILE, 2)
HEIGHTS_8(TILE, 3)
HEIGHTS_6(TILE, 4)
HEIGHTS_5(TILE, 5)
#define REGISTER_TILES                                                                                                 \
  .panel_vectors = 4, .max_vectors = 5, .tile_rows = {0, 12, 12, 8, 6, 5},                                             \
  .multiply = {                                                                                                        \
      {NULL},                                                                                                          \
      {NULL, HEIGHTS_12(TILE_NAME, 1)},                                                                                \
      {NULL, HEIGHTS_12(TILE_NAME, 2)},                                                                                \
      {NULL, HEIGHTS_8(TILE_NAME, 3)},                                                                                 \
      {NULL, HEIGHTS_6(TILE_NAME, 4)},                                                                                 \
      {NULL, HEIGHTS_5(TILE_NAME, 5)},                                                                                 \
  }
#else
HEIGHTS_6(TILE, 2)
HEIGHTS_4(TILE, 3)
HEIGHTS_3(TILE, 4)
#define REGISTER_TILES                                                                                                 \
  .panel_vectors = 2, .max_vectors = 4, .tile_rows = {0, 12, 6, 4, 3},                                                 \
  .multiply = {                                                                                                        \
      {NULL},                                                                                                          \
      {NULL, HEIGHTS_12(TILE_NAME, 1)},                                                                                \
      {NULL, HEIGHTS_6(TILE_NAME, 2)},                                                                                 \
      {NULL, HEIGHTS_4(TILE_NAME, 3)},                                                                                 \
      {NULL, HEIGHTS_3(TILE_NAME, 4)},                                                                                 \
  }
#endif
#undef TILE
