/* Maxout of an array, and its backward.  The lowest index of a tie wins, and the first NaN, as in a tile's epilogue. */
#ifndef FA_MAXOUT_H
#define FA_MAXOUT_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/epilogue.h"
#include "kernels/winner.h"

/* y, argmax of one result */
static ALWAYS_INLINE void maxout_one(int64_t pieces, int64_t piece_step, const real *z, real *y, uint8_t *argmax) {
  real best = z[0];
  int64_t index = 0;
  for (int64_t k = 1; k < pieces; k++) {
    real other = z[k * piece_step];
    if (best == best && !(other <= best)) {
      best = other;
      index = k;
    }
  }
  *y = best;
  if (argmax) *argmax = (uint8_t)index;
}

/* y[i], argmax[i] = the maximum of z[i step + k piece_step], k < pieces, for i < n.  One of the two steps is 1. */
static ALWAYS_INLINE void maxout_steps(int64_t pieces, int64_t step, int64_t piece_step, int64_t n, const real *z,
                                       real *y, uint8_t *argmax) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const real *first = z + i * step;
    vec best = step == 1 ? vec_load(first) : vec_load_strided(first, step), index = vec_set1(0);
    for (int64_t k = 1; k < pieces; k++) {
      const real *piece = first + k * piece_step;
      take_larger(step == 1 ? vec_load(piece) : vec_load_strided(piece, step), vec_set1((real)k), &best, &index);
    }
    vec_store(y + i, best);
    if (argmax) vec_store_bytes(argmax + i, index);
  }
  for (; i < n; i++) maxout_one(pieces, piece_step, z + i * step, y + i, argmax ? argmax + i : NULL);
}

/* z (n, pieces) -> y, argmax (n).  A constant number of pieces makes the addresses of a row constant too. */
static void maxout_rows(int64_t pieces, int64_t n, const void *z, void *y, uint8_t *argmax) {
  switch (pieces) {
  case 2: maxout_steps(2, 2, 1, n, z, y, argmax); break;
  case 3: maxout_steps(3, 3, 1, n, z, y, argmax); break;
  case 4: maxout_steps(4, 4, 1, n, z, y, argmax); break;
  default: maxout_steps(pieces, pieces, 1, n, z, y, argmax); break;
  }
}

/* z (outer, pieces, inner), inner < LANES -> y, argmax (outer, inner).  As many of `outer` as fit are copied to
 * (pieces, count * inner) first.  Each copy is a whole vector, and the next copy overwrites the lanes from `inner` on.
 */
static void maxout_narrow(int64_t outer, int64_t pieces, int64_t inner, const void *z, void *y, uint8_t *argmax) {
  const real *from = z;
  real copies[(MAX_PIECES + 1) * LANES], *to = y;
  const int64_t most = MAX_PIECES * LANES / (pieces * inner);
  for (int64_t o = 0; o < outer; o += most) {
    const int64_t count = outer - o < most ? outer - o : most, width = count * inner;
    for (int64_t k = 0; k < pieces; k++)
      for (int64_t i = 0; i < count; i++)
        vec_store(copies + k * width + i * inner, vec_load_first(from + ((o + i) * pieces + k) * inner, inner));
    maxout_steps(pieces, 1, width, width, copies, to + o * inner, argmax ? argmax + o * inner : NULL);
  }
}

/* z (pieces, inner), of which n columns -> y, argmax (n) */
static void maxout_columns(int64_t pieces, int64_t inner, int64_t n, const void *z, void *y, uint8_t *argmax) {
  maxout_steps(pieces, 1, inner, n, z, y, argmax);
}

/* grad_z (outer, pieces, inner) at the winners (outer, inner) = grad_y (outer, inner) */
static ALWAYS_INLINE void scatter_winners(int64_t outer, int64_t pieces, int64_t inner, const real *grad_y,
                                          const uint8_t *winners, real *grad_z) {
  for (int64_t o = 0; o < outer; o++, grad_z += pieces * inner)
    for (int64_t i = 0; i < inner; i++) grad_z[*winners++ * inner + i] = *grad_y++;
}

/* grad_y, argmax (outer, inner) -> grad_z (outer, pieces, inner), zeros at the losers.  With inner = 1 a constant, the
 * inner loop goes.  bench/tuning: scatter-inner-1 */
static void scatter_rows(int64_t outer, int64_t pieces, int64_t inner, const void *grad_y, const uint8_t *argmax,
                         void *grad_z) {
  uint8_t winners[SCATTER_BLOCK];
  copy_winners(outer * inner, argmax, pieces, winners);
  memset(grad_z, 0, (size_t)(outer * pieces * inner) * sizeof(real));
  if (inner == 1)
    scatter_winners(outer, pieces, 1, grad_y, winners, grad_z);
  else
    scatter_winners(outer, pieces, inner, grad_y, winners, grad_z);
}

/* grad_y, argmax (n) -> n columns of grad_z (pieces, inner), zeros at the losers */
static void scatter_columns(int64_t pieces, int64_t inner, int64_t n, const void *grad_y, const uint8_t *argmax,
                            void *grad_z) {
  const real *from = grad_y;
  real *to = grad_z;
  uint8_t winners[SCATTER_BLOCK];
  copy_winners(n, argmax, pieces, winners);
  for (int64_t k = 0; k < pieces; k++) memset(to + k * inner, 0, (size_t)n * sizeof(real));
  for (int64_t i = 0; i < n; i++) to[winners[i] * inner + i] = from[i];
}

#endif
