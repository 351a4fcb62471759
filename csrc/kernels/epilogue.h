/* The epilogue of a tile with the columns in the lanes: bias, maximum and argmax, and the only writes of results. */
#ifndef FA_EPILOGUE_H
#define FA_EPILOGUE_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* The first `columns` lanes of `a`, or all, to y */
static ALWAYS_INLINE void store_columns(real *y, vec a, int64_t columns) {
  if (columns >= LANES)
    vec_store(y, a);
  else
    vec_store_first(y, a, columns);
}

static ALWAYS_INLINE void store_bytes(uint8_t *p, vec a, int64_t columns) {
  if (columns >= LANES)
    vec_store_bytes(p, a);
  else
    vec_store_bytes_first(p, a, columns);
}

/* y = sums + bias, the vectors side by side.  The fields of *e are read before the loops, because the compiler has to
 * assume that a store to y changes them.  bench/tuning: epilogue-hoisted */
static void store_linear(const struct epilogue_tile *e) {
  const real *sums = e->sums, *bias = e->bias;
  real *y = e->y;
  const int64_t columns = e->columns, sums_stride = e->sums_stride, y_stride = e->y_stride;
  const int vectors = e->vectors, accumulate = e->accumulate;
  for (int64_t r = e->rows; r > 0; r--, sums += sums_stride, y += y_stride) {
    for (int v = 0; v < vectors; v++) {
      const int64_t rest = columns - v * LANES;
      vec sum = vec_add(vec_load(sums + v * LANES), vec_load(bias + v * LANES));
      if (accumulate) sum = vec_add(rest >= LANES ? vec_load(y + v * LANES) : vec_load_first(y + v * LANES, rest), sum);
      store_columns(y + v * LANES, sum, rest);
    }
  }
}

/* best, index = the larger of best and z, and its piece, k for z: the lowest index of a tie wins, and the first NaN. */
static ALWAYS_INLINE void take_larger(vec z, vec k, vec *best, vec *index) {
  mask stays = mask_or(mask_le(z, *best), mask_nan(*best));
  *best = vec_select(stays, *best, z);
  *index = vec_select(stays, *index, k);
}

/* A vector of sums + bias; with `spread` a single bias is added to all lanes. */
static ALWAYS_INLINE vec biased(const real *sums, const real *bias, int spread) {
  return vec_add(vec_load(sums), spread ? vec_set1(*bias) : vec_load(bias));
}

/* The largest of the pieces, lane by lane, and its index.  The first pass assumes that no lane is NaN, so that each
 * maximum waits for the one before it alone; a NaN shows in the sum of all the pieces, and takes a second pass.
 * bench/tuning: nan-afterwards */
static ALWAYS_INLINE vec take_largest(int64_t pieces, const real *sums, int64_t sums_step, const real *bias,
                                      int64_t bias_step, int spread, vec *index) {
  const vec first = biased(sums, bias, spread), zero = vec_set1(0), one = vec_set1(1);
  vec best = first, all = first, piece = zero;
  *index = zero;
  for (int64_t k = 1; k < pieces; k++) {
    vec z = biased(sums + k * sums_step, bias + k * bias_step, spread);
    piece = vec_add(piece, one);
    *index = vec_select(mask_gt(z, best), piece, *index);
    best = vec_max(z, best);
    all = vec_add(all, z);
  }
  if (__builtin_expect(!mask_any(mask_nan(all)), 1)) return best;
  best = first, *index = piece = zero;
  for (int64_t k = 1; k < pieces; k++) {
    piece = vec_add(piece, one);
    take_larger(biased(sums + k * sums_step, bias + k * bias_step, spread), piece, &best, index);
  }
  return best;
}

static ALWAYS_INLINE void store_pieces(const struct epilogue_tile *e, int indexed) {
  for (int64_t r = 0; r < e->rows; r++) {
    const real *sums = (const real *)e->sums + r * e->sums_stride;
    vec index, best = take_largest(e->vectors, sums, LANES, e->bias, LANES, 0, &index);
    store_columns((real *)e->y + r * e->y_stride, best, e->columns);
    if (indexed) store_bytes(e->argmax + r * e->y_stride, index, e->columns);
  }
}

/* y, argmax = the maximum of sums + bias over the pieces */
static void store_maxout(const struct epilogue_tile *e) {
  if (e->argmax)
    store_pieces(e, 1);
  else
    store_pieces(e, 0);
}

#endif
