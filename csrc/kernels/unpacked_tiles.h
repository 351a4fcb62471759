/* Micro-tiles of few rows on unpacked weights, which come into the lanes in registers.  The sums are those of
 * micro-tiles on packed weights, in the same order. */
#ifndef FA_UNPACKED_TILES_H
#define FA_UNPACKED_TILES_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/dots.h"
#include "kernels/tile.h"
#include "kernels/transpose.h"

/* Units this many bytes apart, or a multiple of it, fall into one or two sets of L1.  A set holds 8 lines or more.
 * bench/tuning: shared-sets */
#define SHARED_SETS_BYTES 2048

/* columns[c], lane u = w[u step + c], for u < units and c < n; zeros elsewhere */
static ALWAYS_INLINE void load_units(int64_t units, int64_t n, const real *w, int64_t step, own_vec *columns) {
  real block[OWN_LANES * OWN_LANES];
  if (units < OWN_LANES || n < OWN_LANES) {
    for (int64_t u = 0; u < OWN_LANES; u++)
      own_store(block + u * OWN_LANES, u < units ? own_load_first(w + u * step, n) : own_set1(0));
    w = block;
    step = OWN_LANES;
  }
  own_load_transposed(w, step, columns);
}

/* acc (rows) += x (rows, n) . w (units, n), the units in the lanes; n <= LINE_REALS.  A line of each unit is read
 * whole, since units that fall into one set of L1 evict each other. */
static ALWAYS_INLINE void add_terms(int rows, int64_t n, vec *acc, const real *x, int64_t x_stride, int64_t units,
                                    const real *w, int64_t step) {
  UNROLL
  for (int p = 0; p < OWN_VECTORS; p++, units -= OWN_LANES, w += OWN_LANES * step) {
    for (int64_t d = 0; d < n; d += OWN_LANES) {
      int64_t terms = n - d < OWN_LANES ? n - d : OWN_LANES;
      own_vec columns[OWN_LANES];
      load_units(units, terms, w + d, step, columns);
      UNROLL
      for (int c = 0; c < OWN_LANES; c++) {
        if (c == terms) break;
        UNROLL
        for (int r = 0; r < rows; r++)
          own_accumulate(own_of(&acc[r], p), own_set1(x[r * x_stride + d + c]), columns[c]);
      }
    }
  }
}

/* sums [rows][lanes] = x (rows, depth) . w (units, depth) */
static ALWAYS_INLINE void unpacked_tile(int rows, const struct unpacked *t, const real *x, int64_t units, const real *w,
                                        real *sums) {
  /* The elements before the first whole line; 0 where units do not share sets of L1.  A line that is read in two parts
   * would leave L1 between them. */
  const int64_t ahead = t->unit_stride % (SHARED_SETS_BYTES / (int64_t)sizeof(real))
                            ? 0
                            : (int64_t)(-(uintptr_t)w / sizeof(real) % LINE_REALS);
  int64_t d = 0;
  do {
    int64_t end = t->depth - d > t->cut ? d + t->cut : t->depth;
    int first = d == 0;
    vec acc[MAX_UNPACKED_ROWS];
    UNROLL
    for (int r = 0; r < rows; r++) acc[r] = vec_set1(0);
    for (int64_t n = ahead ? ahead : LINE_REALS; d < end; d += n, n = LINE_REALS) {
      if (n > end - d) n = end - d;
      if (n == LINE_REALS)
        add_terms(rows, LINE_REALS, acc, x + d, t->x_stride, units, w + d, t->unit_stride);
      else
        add_terms(rows, n, acc, x + d, t->x_stride, units, w + d, t->unit_stride);
    }
    UNROLL
    for (int r = 0; r < rows; r++)
      vec_store(sums + r * LANES, first ? acc[r] : vec_add(vec_load(sums + r * LANES), acc[r]));
  } while (d < t->depth);
}

/* All the units of a panel for `rows` rows, a constant */
static ALWAYS_INLINE void unpacked_rows(int rows, const struct unpacked *t, const real *x, real *sums) {
  struct unit_place place = {0};
  const real *w = t->w;
  for (int64_t units = t->columns * t->pieces; units > 0; units -= LANES, w += LANES * t->unit_stride) {
    real tile[MAX_UNPACKED_ROWS * LANES];
    unpacked_tile(rows, t, x, units, w, tile);
    place_sums(rows, units < LANES ? (int)units : LANES, tile, LANES, t, &place, sums);
  }
}

_Static_assert(MAX_UNPACKED_ROWS == 4, "the heights of the switch");

/* Only a frozen layer without inputs has more rows than a tile. */
static void unpacked_tiles(const struct unpacked *t) {
  for (int64_t row = 0; row < t->rows; row += MAX_UNPACKED_ROWS) {
    const real *x = (const real *)t->x + row * t->x_stride;
    real *sums = (real *)t->sums + row * t->sums_stride;
    switch (t->rows - row) {
    case 1: unpacked_rows(1, t, x, sums); break;
    case 2: unpacked_rows(2, t, x, sums); break;
    case 3: unpacked_rows(3, t, x, sums); break;
    default: unpacked_rows(4, t, x, sums); break;
    }
  }
}

#endif
