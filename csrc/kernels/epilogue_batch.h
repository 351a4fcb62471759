/* The epilogue of a product with the batch in lanes: bias, maximum and argmax, transposed on the way to y and argmax.
 */
#ifndef FA_EPILOGUE_BATCH_H
#define FA_EPILOGUE_BATCH_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/epilogue.h"
#include "kernels/transpose.h"

/* A block of at most LANES columns and LANES rows of y and argmax */
static ALWAYS_INLINE void store_block(const struct epilogue_batch *e, int64_t column, int64_t columns, int64_t row,
                                      int64_t rows) {
  const int64_t pieces = e->pieces, stride = e->vectors * LANES, bias_step = e->bias != NULL;
  const real zero = 0, *bias = e->bias ? (const real *)e->bias + column * pieces : &zero;
  const real *sums = (const real *)e->sums + column * pieces * stride + row;
  real best[LANES * LANES], index[LANES * LANES], turned[LANES * LANES];
  for (int64_t i = 0; i < columns; i++, sums += pieces * stride, bias += pieces * bias_step) {
    vec its_index;
    vec_store(best + i * LANES, take_largest(pieces, sums, stride, bias, bias_step, 1, &its_index));
    vec_store(index + i * LANES, its_index);
  }
  for (int64_t i = columns * LANES; i < LANES * LANES; i++) best[i] = index[i] = 0;
  real *y = (real *)e->y + row * e->y_stride + column;
  if (columns == LANES && rows == LANES) {
    transpose_block(best, LANES, y, e->y_stride);
  } else {
    transpose_block(best, LANES, turned, LANES);
    for (int64_t i = 0; i < rows; i++) store_columns(y + i * e->y_stride, vec_load(turned + i * LANES), columns);
  }
  if (!e->argmax) return;
  transpose_block(index, LANES, turned, LANES);
  uint8_t *argmax = e->argmax + row * e->y_stride + column;
  for (int64_t i = 0; i < rows; i++) store_bytes(argmax + i * e->y_stride, vec_load(turned + i * LANES), columns);
}

static void store_batch(const struct epilogue_batch *e) {
  for (int64_t column = 0; column < e->columns; column += LANES)
    for (int64_t row = 0; row < e->rows; row += LANES) {
      int64_t columns = e->columns - column, rows = e->rows - row < LANES ? e->rows - row : LANES;
      if (columns >= LANES)
        store_block(e, column, LANES, row, rows);
      else
        store_block(e, column, columns, row, rows);
    }
}

#endif
