/* The micro-kernel: a register tile of `rows` x `vectors` sums.  With constant rows and vectors the compiler keeps all
 * the accumulators in registers. */

/* How far ahead the left operand is fetched, in steps of 4 of depth.  (2048, 2048, 2048, 2) on two threads ran at 135
 * GFLOP/s without, at 148 with 8, 156 with 20 and 154 with 40. */
#define PREFETCH_QUADS 20

/* acc [rows][vectors] = left [depth / 4][ROW_BLOCK][4] @ right [depth / 4][4][vectors][LANES] */
static ALWAYS_INLINE void multiply(int rows, int vectors, vec *acc, const struct REAL(tile) * t) {
  const real *left = t->left, *right = t->right;
  UNROLL
  for (int i = 0; i < rows * vectors; i++) acc[i] = vec_set1(0);
  for (int64_t d = 0; d < t->depth; d += 4) {
    UNROLL
    for (int q = 0; q < 4; q++, right += vectors * LANES) {
      /* the operand with fewer vectors waits in registers, the other one streams past it */
      vec waiting[MAX_TILE_VECTORS];
      if (rows < vectors) {
        UNROLL
        for (int r = 0; r < rows; r++) waiting[r] = vec_set1(left[r * 4 + q]);
        UNROLL
        for (int v = 0; v < vectors; v++) {
          vec b = vec_load(right + v * LANES);
          UNROLL
          for (int r = 0; r < rows; r++) vec_accumulate(&acc[r * vectors + v], waiting[r], b);
        }
      } else {
        UNROLL
        for (int v = 0; v < vectors; v++) waiting[v] = vec_load(right + v * LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
          vec a = vec_set1(left[r * 4 + q]);
          UNROLL
          for (int v = 0; v < vectors; v++) vec_accumulate(&acc[r * vectors + v], a, waiting[v]);
        }
      }
    }
    __builtin_prefetch(left + PREFETCH_QUADS * ROW_BLOCK * 4);
    if (rows * 4 * sizeof(real) > 64) __builtin_prefetch(left + PREFETCH_QUADS * ROW_BLOCK * 4 + 64 / sizeof(real));
    left += ROW_BLOCK * 4;
  }
}

#define TILE(kind, rows, vectors)                                                                                      \
  static void kind##_tile_##rows##x##vectors(const struct REAL(tile) * t) {                                            \
    vec acc[MAX_TILE_SUMS];                                                                                            \
    multiply(rows, vectors, acc, t);                                                                                   \
    finish_##kind(rows, vectors, acc, t);                                                                              \
  }

/* The tiles fill 32 or 16 registers: sums, and the operand that waits, and one of the other. */
#if VECTOR_REGISTERS == 32
TILE(linear, 12, 2)
TILE(maxout, 12, 2)
TILE(maxout, 8, 3)
TILE(maxout, 6, 4)
#else
TILE(linear, 6, 2)
TILE(maxout, 6, 2)
TILE(maxout, 4, 3)
TILE(maxout, 3, 4)
#endif
#undef TILE
