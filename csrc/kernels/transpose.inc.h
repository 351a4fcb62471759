/* v [LANES][LANES], transposed: riffling the rows as often as halving counts them brings each number to its place */
static ALWAYS_INLINE void transpose_vectors(vec *v) {
  UNROLL
  for (int riffled = 1; riffled < LANES; riffled *= 2) {
    vec riffle[LANES];
    UNROLL
    for (int i = 0; i < LANES / 2; i++) {
      riffle[2 * i] = vec_interleave_low(v[i], v[i + LANES / 2]);
      riffle[2 * i + 1] = vec_interleave_high(v[i], v[i + LANES / 2]);
    }
    UNROLL
    for (int i = 0; i < LANES; i++) v[i] = riffle[i];
  }
}

#if !defined(FAST_TRANSPOSE)
/* src (LANES, LANES) -> dst, its transpose */
static inline void transpose_block(const real *src, int64_t src_stride, real *dst, int64_t dst_stride) {
  vec v[LANES];
  UNROLL
  for (int i = 0; i < LANES; i++) v[i] = vec_load(src + i * src_stride);
  transpose_vectors(v);
  UNROLL
  for (int i = 0; i < LANES; i++) vec_store(dst + i * dst_stride, v[i]);
}
#endif
