/* The last elements of an array, which do not fill a vector. */
#ifndef FA_REST_H
#define FA_REST_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* p (n), n < LANES, and zeros in the other lanes */
static ALWAYS_INLINE vec load_rest(const real *p, int64_t n) {
  real lanes[LANES] = {0};
  memcpy(lanes, p, (size_t)n * sizeof(real));
  return vec_load(lanes);
}

/* The first n lanes of `a`, n < LANES, to p (n) */
static ALWAYS_INLINE void store_rest(real *p, vec a, int64_t n) {
  real lanes[LANES];
  vec_store(lanes, a);
  memcpy(p, lanes, (size_t)n * sizeof(real));
}

/* The same two for n <= LANES. */
static ALWAYS_INLINE vec load_lanes(const real *p, int64_t n) { return n == LANES ? vec_load(p) : load_rest(p, n); }

static ALWAYS_INLINE void store_lanes(real *p, vec a, int64_t n) {
  if (n == LANES)
    vec_store(p, a);
  else
    store_rest(p, a, n);
}

#endif
