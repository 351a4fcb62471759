/* The gradient of a maxout layer's bias: for each piece of each column, the sum of grad_y over the rows in which the
 * piece is the winner. */
#ifndef FA_GRAD_BIAS_H
#define FA_GRAD_BIAS_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/winner.h"

#ifdef FAST_MASK_BYTES /* with few lanes, adding the winners one by one is as quick */

/* Vectors of columns side by side, so that a few cache lines of a row are read at a time, and pieces at a time. */
#define BIAS_VECTORS (VECTOR_REGISTERS / 8)
#define BIAS_PIECES 4

/* sums(j, k), rows `pieces` apart, = the sum over the rows of grad(r, j) where argmax(r, j) = piece + k; j < vectors *
 * LANES, k < count */
static ALWAYS_INLINE void sum_pieces(int vectors, int count, uint8_t piece, const struct gather_bias *b, int64_t column,
                                     real *sums) {
  const int64_t stride = b->stride;
  const real *grad = (const real *)b->grad_y + column;
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

/* All the pieces of `vectors` vectors of columns */
static ALWAYS_INLINE void sum_panel(int vectors, const struct gather_bias *b, int64_t column) {
  for (int64_t k = 0; k < b->pieces; k += BIAS_PIECES) {
    real *sums = (real *)b->sums + column * b->pieces + k;
    switch (b->pieces - k) {
    case 1: sum_pieces(vectors, 1, (uint8_t)k, b, column, sums); break;
    case 2: sum_pieces(vectors, 2, (uint8_t)k, b, column, sums); break;
    case 3: sum_pieces(vectors, 3, (uint8_t)k, b, column, sums); break;
    default: sum_pieces(vectors, BIAS_PIECES, (uint8_t)k, b, column, sums); break;
    }
  }
}

#endif

/* sums (columns, pieces) over DEPTH_CUT rows at most.  In lanes each piece takes a pass, so a large number of pieces is
 * added one by one, as the last columns are.  bench/tuning: bias-in-lanes */
static void gather_bias(const struct gather_bias *b) {
  int64_t j = 0;
#ifdef FAST_MASK_BYTES
  if (b->pieces <= LANES) {
    for (; j + BIAS_VECTORS * LANES <= b->columns; j += BIAS_VECTORS * LANES) sum_panel(BIAS_VECTORS, b, j);
    for (; j + LANES <= b->columns; j += LANES) sum_panel(1, b, j);
  }
#endif
  const int64_t columns = b->columns - j, pieces = b->pieces, stride = b->stride;
  const real *grad = (const real *)b->grad_y + j;
  const uint8_t *argmax = b->argmax + j;
  real *sums = (real *)b->sums + j * pieces;
  memset(sums, 0, (size_t)(columns * pieces) * sizeof(real));
  for (int64_t r = b->rows; r > 0; r--, grad += stride, argmax += stride)
    for (int64_t i = 0; i < columns; i++) sums[i * pieces + winner_at(argmax + i, pieces)] += grad[i];
}

#endif
