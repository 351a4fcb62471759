/* Packing of operands of elements, in the order in which the micro-kernel reads them. */
#ifndef FA_PACK_H
#define FA_PACK_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/transpose.h"

/* src (rows, columns), at most LANES each -> dst (columns, LANES), zeros beyond `rows` */
static void transpose_part(int64_t rows, int64_t columns, const real *src, int64_t src_stride, real *dst,
                           int64_t dst_stride) {
  vec v[LANES];
  for (int64_t i = 0; i < LANES; i++) v[i] = i < rows ? vec_load_first(src + i * src_stride, columns) : vec_set1(0);
  transpose_vectors(v);
  for (int64_t i = 0; i < columns; i++) vec_store(dst + i * dst_stride, v[i]);
}

/* src (rows, columns) -> dst (columns, rows up to a multiple of LANES), zeros beyond `rows` */
static int transpose(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                     int64_t dst_stride) {
  for (int64_t r = 0; r < rows; r += LANES) {
    const real *from = (const real *)src + r * src_stride;
    real *to = (real *)dst + r;
    int64_t c = 0;
    for (; r + LANES <= rows && c + LANES <= columns; c += LANES)
      transpose_block(from + c, src_stride, to + c * dst_stride, dst_stride);
    for (; c < columns; c += LANES)
      transpose_part(rows - r < LANES ? rows - r : LANES, columns - c < LANES ? columns - c : LANES, from + c,
                     src_stride, to + c * dst_stride, dst_stride);
  }
  return 1;
}

/* src (rows, columns) -> dst (rows, LANES), zeros beyond `columns` */
static int copy_lanes(int64_t rows, int64_t columns, const void *src, int64_t src_stride, void *dst,
                      int64_t dst_stride) {
  const real *from = src;
  real *to = dst;
  for (int64_t r = 0; r < rows; r++, from += src_stride, to += dst_stride)
    vec_store(to, columns >= LANES ? vec_load(from) : vec_load_first(from, columns));
  return 1;
}

#endif
