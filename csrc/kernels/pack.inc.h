/* Packing: an operand in the order in which the micro-kernel reads it. */

/* src (rows, columns) -> dst (columns, rows up to a multiple of LANES), zeros beyond `rows` */
static int transpose(int64_t rows, int64_t columns, const real *src, int64_t src_stride, real *dst,
                     int64_t dst_stride) {
  for (int64_t r = 0; r < rows; r += LANES) {
    for (int64_t c = 0; c < columns; c += LANES) {
      const real *from = src + r * src_stride + c;
      real *to = dst + c * dst_stride + r;
      vec v[LANES];
      if (r + LANES <= rows && c + LANES <= columns) {
        UNROLL
        for (int i = 0; i < LANES; i++) v[i] = vec_load(from + i * src_stride);
      } else {
        for (int64_t i = 0; i < LANES; i++)
          v[i] = r + i < rows ? vec_load_first(from + i * src_stride, columns - c < LANES ? columns - c : LANES)
                              : vec_set1(0);
      }
      transpose_vectors(v);
      if (c + LANES <= columns) {
        UNROLL
        for (int i = 0; i < LANES; i++) vec_store(to + i * dst_stride, v[i]);
      } else {
        for (int64_t i = 0; i < columns - c; i++) vec_store(to + i * dst_stride, v[i]);
      }
    }
  }
  return 1;
}

/* src (rows, columns) -> dst (rows, LANES), zeros beyond `columns` */
static int copy_lanes(int64_t rows, int64_t columns, const real *src, int64_t src_stride, real *dst,
                      int64_t dst_stride) {
  for (int64_t r = 0; r < rows; r++, src += src_stride, dst += dst_stride)
    vec_store(dst, columns >= LANES ? vec_load(src) : vec_load_first(src, columns));
  return 1;
}
