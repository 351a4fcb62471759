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
/* columns[c], lane r = p[r step + c] */
static inline void vec_load_transposed(const real *p, int64_t step, vec *columns) {
  UNROLL
  for (int r = 0; r < LANES; r++) columns[r] = vec_load(p + r * step);
  transpose_vectors(columns);
}
#endif

/* A vector is one of the ISA's own, or two of them in isa/paired.h. */
#ifndef OWN_VECTORS
#define OWN_VECTORS 1
#define OWN_LANES LANES
#define own_vec vec
#define own_set1 vec_set1
#define own_load_first vec_load_first
#define own_store vec_store
#define own_accumulate vec_accumulate
#define own_load_transposed vec_load_transposed
static inline own_vec *own_of(vec *a, int i) { return a + i; }
#endif

/* src (LANES, LANES) -> dst, its transpose */
static inline void transpose_block(const real *src, int64_t src_stride, real *dst, int64_t dst_stride) {
  UNROLL
  for (int r = 0; r < LANES; r += OWN_LANES) {
    UNROLL
    for (int c = 0; c < LANES; c += OWN_LANES) {
      own_vec columns[OWN_LANES];
      own_load_transposed(src + r * src_stride + c, src_stride, columns);
      UNROLL
      for (int i = 0; i < OWN_LANES; i++) own_store(dst + (c + i) * dst_stride + r, columns[i]);
    }
  }
}

#endif
