/* The micro-kernel: a micro-tile of `rows` x `vectors` sums, kept in registers.
 *
 * The left operand is read where it is, one element for all lanes; the right operand is read from a panel, which is
 * not prefetched by hand, even where a low tile waits for it (bench/tuning: panel-prefetch).  Rows and vectors are
 * constants of each instance, so that the compiler gives every vector of sums a register.  Every micro-tile adds the
 * terms of a sum in the same order, so that a row has the same bits in a tile of any height. */
#ifndef FA_TILE_H
#define FA_TILE_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* Distance of the prefetch of the left operand's rows, in elements.  Prefetching stops at the tile's depth: elements
 * beyond belong to the next depth block, and would evict the present one from L1.  bench/tuning: prefetch-ahead */
#define PREFETCH_AHEAD 32
/* Elements of a cache line. */
#define LINE_REALS (64 / (int64_t)sizeof(real))

/* Elements of a row of the left operand that are loaded at once.  More than one in an ISA whose multiply-add takes a
 * factor from a lane; elsewhere one element fills all the lanes. */
#ifndef FACTORS
#define FACTORS 1
#endif
/* Steps of depth that the loop is unrolled by. */
#define STEPS (FACTORS > 1 ? 2 * FACTORS : 4)

/* Steps of depth, 1 or FACTORS.  left[i] points at row 3 i, so that 12 rows take 4 pointers and the stride. */
static ALWAYS_INLINE void multiply_steps(int steps, int rows, int vectors, vec *acc, const real *const *left,
                                         int64_t stride, const real *right, int64_t right_stride) {
  vec b[MAX_TILE_VECTORS];
#if FACTORS == 1
  (void)steps, (void)right_stride;
  UNROLL
  for (int v = 0; v < vectors; v++) b[v] = vec_load(right + v * LANES);
  UNROLL
  for (int r = 0; r < rows; r++) {
    vec a = vec_set1(left[r / 3][r % 3 * stride]);
    UNROLL
    for (int v = 0; v < vectors; v++) vec_accumulate(&acc[r * vectors + v], a, b[v]);
  }
#else /* the factors of all rows fill registers, so that the vectors of the right operand come one by one */
  factors a[MAX_REGISTER_ROWS];
  UNROLL
  for (int q = 0; q < steps; q++, right += right_stride) {
    if (q > 0) KEEP_POINTER(right);
    UNROLL
    for (int v = 0; v < vectors; v++) {
      b[v] = vec_load(right + v * LANES);
      UNROLL
      for (int r = 0; r < rows; r++) {
        if (v == 0 && q == 0) a[r] = load_factors(left[r / 3] + r % 3 * stride, steps);
        accumulate_factor(&acc[r * vectors + v], a[r], q, b[v]);
      }
    }
  }
#endif
}

static ALWAYS_INLINE void multiply_tile(int rows, int vectors, const struct tile *t) {
  vec acc[MAX_TILE_SUMS];
  const real *left[MAX_REGISTER_ROWS / 3], *right = t->right;
  int64_t rest = t->depth, stride = t->left_stride, right_stride = t->right_stride;
  int add = t->add;
  UNROLL
  for (int r = 0; r < rows; r += 3) left[r / 3] = (const real *)t->left + r * stride;
  do {
    int64_t d = 0, depth = rest < t->cut ? rest : t->cut;
    UNROLL
    for (int i = 0; i < rows * vectors; i++) acc[i] = vec_set1(0);
    for (; d + STEPS <= depth; d += STEPS) {
      if (d % LINE_REALS == 0 && d + PREFETCH_AHEAD < rest) {
        UNROLL
        for (int r = 0; r < rows; r++) __builtin_prefetch(left[r / 3] + r % 3 * stride + PREFETCH_AHEAD);
      }
      UNROLL
      for (int q = 0; q < STEPS; q += FACTORS, right += FACTORS * right_stride) {
        multiply_steps(FACTORS, rows, vectors, acc, left, stride, right, right_stride);
        UNROLL
        for (int r = 0; r < rows; r += 3) left[r / 3] += FACTORS;
      }
    }
    for (; d < depth; d++, right += right_stride) {
      multiply_steps(1, rows, vectors, acc, left, stride, right, right_stride);
      UNROLL
      for (int r = 0; r < rows; r += 3) left[r / 3]++;
    }
    UNROLL
    for (int i = 0; i < rows * vectors; i++) {
      real *sum = (real *)t->sums + i / vectors * t->sums_stride + i % vectors * LANES;
      vec_store(sum, add ? vec_add(vec_load(sum), acc[i]) : acc[i]);
    }
    add = 1;
    rest -= t->cut;
  } while (rest > 0);
}

/* multiply_<rows>x<vectors>, and its place in the table */
#define TILE(rows, vectors)                                                                                            \
  static void multiply_##rows##x##vectors(const struct tile *t) { multiply_tile(rows, vectors, t); }
#define TILE_NAME(rows, vectors) multiply_##rows##x##vectors,
/* HEIGHTS_n(X, vectors): X for each height from 1 to n */
#define HEIGHTS_3(X, vectors) X(1, vectors) X(2, vectors) X(3, vectors)
#define HEIGHTS_4(X, vectors) HEIGHTS_3(X, vectors) X(4, vectors)
#define HEIGHTS_5(X, vectors) HEIGHTS_4(X, vectors) X(5, vectors)
#define HEIGHTS_6(X, vectors) HEIGHTS_5(X, vectors) X(6, vectors)
#define HEIGHTS_8(X, vectors) HEIGHTS_6(X, vectors) X(7, vectors) X(8, vectors)
#define HEIGHTS_12(X, vectors) HEIGHTS_8(X, vectors) X(9, vectors) X(10, vectors) X(11, vectors) X(12, vectors)

/* The tallest tiles fill the registers: their sums, the vectors of the right operand, and one element of the
 * left, or the factors of all rows. */
#if VECTOR_REGISTERS == 32
HEIGHTS_12(TILE, 1)
HEIGHTS_12(TILE, 2)
HEIGHTS_8(TILE, 3)
HEIGHTS_6(TILE, 4)
HEIGHTS_5(TILE, 5)
#define MICRO_TILES                                                                                                    \
  .panel_vectors = 4, .max_vectors = 5, .tile_rows = {0, 12, 12, 8, 6, 5},                                             \
  .multiply = {                                                                                                        \
      {NULL},                                                                                                          \
      {NULL, HEIGHTS_12(TILE_NAME, 1)},                                                                                \
      {NULL, HEIGHTS_12(TILE_NAME, 2)},                                                                                \
      {NULL, HEIGHTS_8(TILE_NAME, 3)},                                                                                 \
      {NULL, HEIGHTS_6(TILE_NAME, 4)},                                                                                 \
      {NULL, HEIGHTS_5(TILE_NAME, 5)},                                                                                 \
  }
#elif VECTOR_REGISTERS == 8 /* pairs of registers: the heights of 16 registers, for half as many vectors */
HEIGHTS_6(TILE, 1)
HEIGHTS_3(TILE, 2)
#define MICRO_TILES                                                                                                    \
  .panel_vectors = 1, .max_vectors = 2, .tile_rows = {0, 6, 3},                                                        \
  .multiply = {{NULL}, {NULL, HEIGHTS_6(TILE_NAME, 1)}, {NULL, HEIGHTS_3(TILE_NAME, 2)}}
#else
#if FACTORS > 1
#define TALLEST 8
#define HEIGHTS HEIGHTS_8
#else
#define TALLEST 12
#define HEIGHTS HEIGHTS_12
#endif
HEIGHTS(TILE, 1)
HEIGHTS_6(TILE, 2)
HEIGHTS_4(TILE, 3)
HEIGHTS_3(TILE, 4)
#define MICRO_TILES                                                                                                    \
  .panel_vectors = 2, .max_vectors = 4, .tile_rows = {0, TALLEST, 6, 4, 3},                                            \
  .multiply = {                                                                                                        \
      {NULL},                                                                                                          \
      {NULL, HEIGHTS(TILE_NAME, 1)},                                                                                   \
      {NULL, HEIGHTS_6(TILE_NAME, 2)},                                                                                 \
      {NULL, HEIGHTS_4(TILE_NAME, 3)},                                                                                 \
      {NULL, HEIGHTS_3(TILE_NAME, 4)},                                                                                 \
  }
#endif
#undef TILE

#endif
