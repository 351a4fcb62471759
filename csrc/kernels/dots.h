/* Dot products on unpacked weights: the depth is in the lanes.  Nothing is packed, and no lane is empty where there are
 * few outputs. */
#ifndef FA_DOTS_H
#define FA_DOTS_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* The micro-tile: DOT_ROWS x DOT_UNITS sums of a vector each. */
enum { DOT_ROWS = 4, DOT_UNITS = VECTOR_REGISTERS / 8 };
/* The micro-tile's sums, up to whole vectors. */
enum { DOT_SUMS = (DOT_ROWS * DOT_UNITS + LANES - 1) / LANES * LANES };

/* Upper limit on the terms of one lane in a cut of depth, for accuracy: NumPy's product of few rows spreads each sum
 * over several vectors too.  bench/tuning: dot-cut */
#define DOT_CUT 32

/* sums[i] = the sum of the lanes of v[i], i < n.  Each interleaving halves the number of vectors, and of the terms that
 * a sum is spread over, until one vector holds LANES finished sums in their order. */
static ALWAYS_INLINE void sum_lanes(int n, const vec *v, real *sums) {
  UNROLL
  for (int start = 0; start < n; start += LANES) {
    vec part[LANES];
    UNROLL
    for (int i = 0; i < LANES; i++) part[i] = start + i < n ? v[start + i] : vec_set1(0);
    UNROLL
    for (int half = LANES / 2; half > 0; half /= 2) {
      UNROLL
      for (int i = 0; i < half; i++)
        part[i] = vec_add(vec_interleave_low(part[i], part[i + half]), vec_interleave_high(part[i], part[i + half]));
    }
    vec_store(sums + start, part[0]);
  }
}

/* acc (rows, units) += x (rows, n) . w (units, n), n <= LANES.  Nothing is prefetched by hand, though a single
 * row waits for memory.  bench/tuning: dots-prefetch */
static ALWAYS_INLINE void dot_step(int rows, int units, vec *acc, const struct unpacked *t, const real *x,
                                   const real *w, int64_t n) {
  vec b[DOT_UNITS];
  UNROLL
  for (int u = 0; u < units; u++) {
    b[u] = n == LANES ? vec_load(w + u * t->unit_stride) : vec_load_first(w + u * t->unit_stride, n);
    if (rows > 1) vec_keep(&b[u]);
  }
  UNROLL
  for (int r = 0; r < rows; r++) {
    vec a = n == LANES ? vec_load(x + r * t->x_stride) : vec_load_first(x + r * t->x_stride, n);
    UNROLL
    for (int u = 0; u < units; u++) vec_accumulate(&acc[r * units + u], a, b[u]);
  }
}

/* sums [rows][units] = x (rows, depth) . w (units, depth) */
static ALWAYS_INLINE void dot_tile(int rows, int units, const struct unpacked *t, const real *x, const real *w,
                                   real *sums) {
  int64_t d = 0;
  do {
    int64_t end = t->depth - d > DOT_CUT * LANES ? d + DOT_CUT * LANES : t->depth;
    int first = d == 0;
    vec acc[DOT_ROWS * DOT_UNITS];
    real cut[DOT_SUMS];
    UNROLL
    for (int i = 0; i < rows * units; i++) acc[i] = vec_set1(0);
    for (; d + LANES <= end; d += LANES) dot_step(rows, units, acc, t, x + d, w + d, LANES);
    if (d < end) dot_step(rows, units, acc, t, x + d, w + d, end - d);
    d = end;
    sum_lanes(rows * units, acc, cut);
    UNROLL
    for (int i = 0; i < rows * units; i += LANES)
      vec_store(sums + i, first ? vec_load(cut + i) : vec_add(vec_load(sums + i), vec_load(cut + i)));
  } while (d < t->depth);
}

/* The place of a unit's sum among those of a panel */
struct unit_place {
  int64_t column;
  int piece;
};

/* tile (rows, n), rows `stride` apart: the sums of the n units from `place` on, which advances */
static ALWAYS_INLINE void place_sums(int rows, int n, const real *tile, int stride, const struct unpacked *t,
                                     struct unit_place *place, real *sums) {
  for (int i = 0; i < n; i++) {
    for (int r = 0; r < rows; r++)
      sums[r * t->sums_stride + place->piece * LANES + place->column] = tile[r * stride + i];
    if (++place->piece == t->pieces) *place = (struct unit_place){place->column + 1, 0};
  }
}

/* All the units of a panel for `rows` rows, a constant */
static ALWAYS_INLINE void dot_rows(int rows, const struct unpacked *t, const real *x, real *sums) {
  struct unit_place place = {0};
  int64_t units = t->columns * t->pieces;
  const real *w = t->w;
  for (int64_t u = 0; u < units; u += DOT_UNITS, w += DOT_UNITS * t->unit_stride) {
    real tile[DOT_SUMS];
    int n = units - u < DOT_UNITS ? (int)(units - u) : DOT_UNITS;
    switch (n) {
#if VECTOR_REGISTERS == 32
    case 4: dot_tile(rows, 4, t, x, w, tile); break;
    case 3: dot_tile(rows, 3, t, x, w, tile); break;
#endif
#if VECTOR_REGISTERS >= 16
    case 2: dot_tile(rows, 2, t, x, w, tile); break;
#endif
    default:
      n = 1; /* tells the compiler that all of `tile` is written */
      dot_tile(rows, 1, t, x, w, tile);
      break;
    }
    place_sums(rows, n, tile, n, t, &place, sums);
  }
}

/* Rows are cut into tiles whose heights differ by one at most. */
static void dots(const struct unpacked *t) {
  int64_t tiles = (t->rows + DOT_ROWS - 1) / DOT_ROWS;
  for (int64_t i = 0; i < tiles; i++) {
    int64_t first = i * t->rows / tiles, height = (i + 1) * t->rows / tiles - first;
    const real *x = (const real *)t->x + first * t->x_stride;
    real *sums = (real *)t->sums + first * t->sums_stride;
    switch (height) {
    case 4: dot_rows(4, t, x, sums); break;
    case 3: dot_rows(3, t, x, sums); break;
    case 2: dot_rows(2, t, x, sums); break;
    default: dot_rows(1, t, x, sums); break;
    }
  }
}

#endif
