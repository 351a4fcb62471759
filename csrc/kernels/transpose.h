/* Transposes of LANES x LANES blocks. */
#ifndef FA_TRANSPOSE_H
#define FA_TRANSPOSE_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* v [LANES][LANES] -> its transpose, in place.  Interleaving each row with the one LANES / 2 further rotates the bits
 * of an element's address (row, lane) by one, so log2(LANES) passes exchange row and lane. */
static ALWAYS_INLINE void transpose_vectors(vec *v) {
  UNROLL
  for (int passes = 1; passes < LANES; passes *= 2) {
    vec interleaved[LANES];
    UNROLL
    for (int i = 0; i < LANES / 2; i++) {
      interleaved[2 * i] = vec_interleave_low(v[i], v[i + LANES / 2]);
      interleaved[2 * i + 1] = vec_interleave_high(v[i], v[i + LANES / 2]);
    }
    UNROLL
    for (int i = 0; i < LANES; i++) v[i] = interleaved[i];
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

#endif
