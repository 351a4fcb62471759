/* The micro-kernel: a register tile of `rows` x `vectors` sums, and the two ways to finish it.
 *
 * With constant rows and vectors the compiler keeps all the accumulators in registers.  A maxout tile holds
 * the pieces of LANES neighbouring outputs, one piece a vector, so that a group meets in registers. */

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
static ALWAYS_INLINE void linear_tile(int rows, int vectors, const struct REAL(tile) * t) {
  vec acc[MAX_TILE_SUMS];
  multiply(rows, vectors, acc, t);
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
static ALWAYS_INLINE void maxout_tile(int rows, int pieces, const struct REAL(tile) * t) {
  vec acc[MAX_TILE_SUMS];
  multiply(rows, pieces, acc, t);
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

#define TILE(finish, rows, vectors)                                                                                    \
  static void finish##_##rows##x##vectors(const struct REAL(tile) * t) { finish(rows, vectors, t); }

/* The tiles fill 32 or 16 registers: sums, and the operand that waits, and one of the other. */
#if VECTOR_REGISTERS == 32
TILE(linear_tile, 12, 2)
TILE(maxout_tile, 12, 2)
TILE(maxout_tile, 8, 3)
TILE(maxout_tile, 6, 4)
#else
TILE(linear_tile, 6, 2)
TILE(maxout_tile, 6, 2)
TILE(maxout_tile, 4, 3)
TILE(maxout_tile, 3, 4)
#endif
#undef TILE
